# Turns the file FROM into the C++ source TO, which defines kReportPage. The text goes in pieces because a string
# literal may not be longer than 64 KiB everywhere.
file(READ ${FROM} text)
set(source "#include \"bench/load/report_page.h\"\n\nnamespace din::load {\nconst char* const kReportPage =\n")
string(LENGTH "${text}" length)
set(begin 0)
while(begin LESS length)
  string(SUBSTRING "${text}" ${begin} 8000 piece)
  string(APPEND source "R\"~~~(${piece})~~~\"\n")
  math(EXPR begin "${begin} + 8000")
endwhile()
string(APPEND source ";\n}  // namespace din::load\n")
file(WRITE ${TO} "${source}")
