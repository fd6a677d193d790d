// What keeps a server from listening is known before it loads models, with the system's reason.
#include "server/bind_probe.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using ::testing::HasSubstr;

void ExpectCannot(const std::string& address, const std::string& why) {
  const absl::Status status = ProbeBind(address);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << address;
  EXPECT_THAT(std::string(status.message()), HasSubstr("listen: cannot bind " + address + ": " + why));
}

TEST(ProbeBindTest, FreeAddressesAreFreeAfterwardsToo) {
  const TempDirectory directory;
  for (const std::string& address : {std::string("127.0.0.1:0"), std::string("localhost:0"), std::string("0.0.0.0:0"),
                                     "unix:" + directory / "socket"}) {
    EXPECT_TRUE(ProbeBind(address).ok()) << ProbeBind(address);
    EXPECT_TRUE(ProbeBind(address).ok()) << address;
  }
}

TEST(ProbeBindTest, PortInUseSaysSo) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(name);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size), 0);
  ExpectCannot(absl::StrCat("127.0.0.1:", ntohs(name.sin_port)), "Address already in use");
  close(fd);
  EXPECT_TRUE(ProbeBind(absl::StrCat("127.0.0.1:", ntohs(name.sin_port))).ok());
}

TEST(ProbeBindTest, AddressOfAnotherMachineAndUnknownHost) {
  ExpectCannot("192.0.2.1:0", "Cannot assign requested address");  // RFC 5737: nobody's
  ExpectCannot("no.such.host.invalid:0", "");
}

TEST(ProbeBindTest, SocketOfALiveServerIsNotTakenAndADeadOnesIs) {
  const TempDirectory directory;
  const std::string path = directory / "socket";
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ExpectCannot("unix:" + path, "a server is listening there");
  close(fd);
  EXPECT_TRUE(ProbeBind("unix:" + path).ok());
}

TEST(ProbeBindTest, SocketNeedsADirectoryAndAShortPath) {
  ExpectCannot("unix:/no/such/directory/socket", "directory /no/such/directory: No such file or directory");
  ExpectCannot("unix:/tmp/" + std::string(200, 'x'), "path of 205 bytes > limit 107");
}

}  // namespace
}  // namespace din
