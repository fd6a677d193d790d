// din-load against a constant_time_server, each a process of its own.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/child.h"

namespace din::testing {

// Far below the server's capacity, so that what piles up during a stop is answered in no time; and few small requests,
// so that they fit into the sockets meanwhile: beyond that TCP drops them, and its retransmissions are in the latency.
inline constexpr int kRate = 200;

// "host:port" that a constant_time_server has printed.
inline std::string AddressOf(Child& server) {
  const std::string line = server.ReadLine();
  return "127.0.0.1:" + line.substr(line.find(' ') + 1);
}

// The command line of a run with kRate evenly spaced requests per second and its report as JSON on standard output.
inline std::vector<std::string> LoadCommand(const std::string& address, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {Beside("din-load"),
                                        "--server",
                                        address,
                                        "--rate",
                                        std::to_string(kRate),
                                        "--arrivals",
                                        "constant",
                                        "--candidates",
                                        "4",
                                        "--behaviours",
                                        "4",
                                        "--distinct",
                                        "64",
                                        "--json",
                                        "-"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace din::testing
