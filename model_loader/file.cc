#include "model_loader/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "absl/strings/str_cat.h"
#include "model/status_macros.h"
#include "model_loader/quote.h"

namespace din {
namespace {

// Some file systems refuse or cut larger transfers.
constexpr size_t kLargestTransfer = size_t{64} << 20;

// "weights.safetensors: read at byte 4096: Input/output error". Must be called before anything changes errno.
absl::Status IoError(const std::string& name, const std::string& what) {
  const int error = errno;
  absl::StatusCode code = absl::ErrnoToStatusCode(error);
  if (code == absl::StatusCode::kUnknown) code = absl::StatusCode::kUnavailable;  // EIO and its like: worth a retry
  return absl::Status(code, absl::StrCat(name, ": ", what, ": ", std::strerror(error)));
}

absl::Status SyncDescriptor(int fd, const std::string& name) {
  return fsync(fd) == 0 ? absl::OkStatus() : IoError(name, "fsync");
}

// A bare name: what openat() would walk through is not one.
absl::Status CheckName(const std::string& name) {
  if (!name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
      name.find('\0') == std::string::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("file name ", Quote(name), ": not a bare name"));
}

}  // namespace

FileDescriptor::~FileDescriptor() {
  if (fd_ >= 0) close(fd_);
}

absl::Status ReadableFile::ReadAt(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = pread(fd_.get(), out.data(), std::min(out.size(), kLargestTransfer), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(name_, absl::StrCat("read at byte ", offset));
    if (n == 0) {
      return absl::DataLossError(absl::StrCat(name_, ": ends at byte ", offset, ", ", out.size(), " more expected"));
    }
    offset += static_cast<uint64_t>(n);
    out = out.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status ReadableFile::Sync() const { return SyncDescriptor(fd_.get(), name_); }

absl::Status WritableFile::Append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd_.get(), bytes.data(), std::min(bytes.size(), kLargestTransfer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return IoError(name_, "write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status WritableFile::Sync() { return SyncDescriptor(fd_.get(), name_); }

absl::StatusOr<Directory> Directory::OpenAt(int at, const std::string& path) {
  FileDescriptor fd(openat(at, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.get() >= 0) return Directory(std::move(fd));
  if (errno == ELOOP || errno == ENOTDIR) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a symbolic link, or not a directory"));
  }
  return IoError(path, "open");
}

absl::StatusOr<Directory> Directory::Open(const std::string& path) {
  // With a slash behind it, a symbolic link would be followed.
  const size_t last = path.find_last_not_of('/');
  return OpenAt(AT_FDCWD, last == std::string::npos ? path : path.substr(0, last + 1));
}

absl::StatusOr<Directory> Directory::OpenDirectory(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  return OpenAt(fd_.get(), name);
}

absl::StatusOr<ReadableFile> Directory::OpenFile(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  // O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
  FileDescriptor fd(openat(fd_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (fd.get() < 0 && errno == ELOOP) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": a symbolic link, must be a regular file"));
  }
  if (fd.get() < 0 && errno == ENXIO) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": a socket, must be a regular file"));
  }
  if (fd.get() < 0) return IoError(name, "open");
  struct stat info;
  if (fstat(fd.get(), &info) != 0) return IoError(name, "stat");
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(name, ": not a regular file"));
  return ReadableFile(name, std::move(fd), static_cast<uint64_t>(info.st_size));
}

absl::StatusOr<WritableFile> Directory::CreateFile(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  FileDescriptor fd(openat(fd_.get(), name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
  if (fd.get() < 0) return IoError(name, "create");
  return WritableFile(name, std::move(fd));
}

absl::Status Directory::MakeDirectory(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  return mkdirat(fd_.get(), name.c_str(), 0755) == 0 ? absl::OkStatus() : IoError(name, "create directory");
}

absl::StatusOr<std::vector<std::string>> Directory::List() const {
  // A description of its own: the position in the listing belongs to the description, not to the descriptor.
  const int fd = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return IoError(".", "open");
  DIR* stream = fdopendir(fd);
  if (stream == nullptr) {
    const absl::Status status = IoError(".", "list");
    close(fd);
    return status;
  }
  const auto close_stream = [](DIR* d) { closedir(d); };
  const std::unique_ptr<DIR, decltype(close_stream)> owner(stream, close_stream);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(stream)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return IoError(".", "list");
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<bool> Directory::Has(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  struct stat info;
  if (fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0) return true;
  if (errno == ENOENT) return false;
  return IoError(name, "stat");
}

absl::StatusOr<FileStamp> Directory::StampOf(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  struct stat info;
  if (fstatat(fd_.get(), name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) return IoError(name, "stat");
  return FileStamp{.inode = info.st_ino,
                   .size = static_cast<uint64_t>(info.st_size),
                   .modified_ns = int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec};
}

absl::Status Directory::RenameKeep(const std::string& from, const std::string& to) const {
  DIN_RETURN_IF_ERROR(CheckName(from));
  DIN_RETURN_IF_ERROR(CheckName(to));
  int result = renameat2(fd_.get(), from.c_str(), fd_.get(), to.c_str(), RENAME_NOREPLACE);
  if (result != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // A file system without the flag (NFS). A directory that is there and not empty still stops a plain rename.
    DIN_ASSIGN_OR_RETURN(const bool there, Has(to));
    if (there)
      errno = EEXIST;
    else
      result = renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str());
  }
  return result == 0 ? absl::OkStatus() : IoError(to, absl::StrCat("rename from ", from));
}

absl::Status Directory::RenameReplace(const std::string& from, const std::string& to) const {
  DIN_RETURN_IF_ERROR(CheckName(from));
  DIN_RETURN_IF_ERROR(CheckName(to));
  const int result = renameat(fd_.get(), from.c_str(), fd_.get(), to.c_str());
  return result == 0 ? absl::OkStatus() : IoError(to, absl::StrCat("rename from ", from));
}

absl::Status Directory::RemoveFile(const std::string& name) const {
  DIN_RETURN_IF_ERROR(CheckName(name));
  return unlinkat(fd_.get(), name.c_str(), 0) == 0 ? absl::OkStatus() : IoError(name, "remove");
}

absl::Status Directory::RemoveDirectoryOfFiles(const std::string& name) const {
  DIN_ASSIGN_OR_RETURN(const Directory directory, OpenDirectory(name));
  DIN_ASSIGN_OR_RETURN(const std::vector<std::string> files, directory.List());
  for (const std::string& file : files) DIN_RETURN_IF_ERROR(directory.RemoveFile(file));
  return unlinkat(fd_.get(), name.c_str(), AT_REMOVEDIR) == 0 ? absl::OkStatus() : IoError(name, "remove");
}

bool Directory::TryLock() const { return flock(fd_.get(), LOCK_EX | LOCK_NB) == 0; }

absl::Status Directory::Sync() const { return SyncDescriptor(fd_.get(), "."); }

absl::Status MakeDirectories(const std::string& path) {
  if (Directory::Open(path + "/.").ok()) return absl::OkStatus();
  const std::filesystem::path whole = std::filesystem::absolute(path).lexically_normal();
  std::string parent = "/";
  for (const std::filesystem::path& part : whole.relative_path()) {
    if (part.empty()) continue;  // behind a trailing slash
    const std::string child = (std::filesystem::path(parent) / part).string();
    if (mkdir(child.c_str(), 0755) == 0) {
      // "/.": the parent itself may be a link.
      DIN_ASSIGN_OR_RETURN(const Directory directory, Directory::Open(parent + "/."));
      DIN_RETURN_IF_ERROR(Prefixed(parent + "/", directory.Sync()));
    } else if (errno != EEXIST) {
      return IoError(child, "create directory");
    }
    parent = child;
  }
  return absl::OkStatus();
}

absl::Status Prefixed(const std::string& prefix, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(prefix, std::string(status.message().data(), status.message().size())));
}

}  // namespace din
