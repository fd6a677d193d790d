#include "model_loader/cgroup.h"

#include <fstream>
#include <sstream>

namespace din {
namespace {

bool Names(const std::string& controllers, std::string_view wanted) {
  std::istringstream list(controllers);
  for (std::string one; std::getline(list, one, ',');) {
    if (one == wanted) return true;
  }
  return false;
}

void AddUpward(const std::string& root, std::string path, std::vector<std::string>& directories) {
  for (;;) {
    directories.push_back(root + path);
    if (path.empty()) return;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

}  // namespace

std::vector<std::string> CgroupDirectories(std::string_view controller, const CgroupSources& sources) {
  std::vector<std::string> directories;
  std::ifstream cgroups(sources.process_cgroup);
  for (std::string line; std::getline(cgroups, line);) {  // "0::/path", or "4:cpu,cpuacct:/path"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    while (!path.empty() && path.back() == '/') path.pop_back();
    if (controllers.empty()) {
      AddUpward(sources.cgroup_root, path, directories);
    } else if (Names(controllers, controller)) {
      AddUpward(sources.cgroup_root + "/" + std::string(controller), path, directories);
    }
  }
  return directories;
}

}  // namespace din
