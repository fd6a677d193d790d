// report_page.html, built in. "/*DATA*/null" in it stands for the report's JSON.
#pragma once

namespace din::load {

extern const char* const kReportPage;

}  // namespace din::load
