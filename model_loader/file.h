// Files and directories: the one place that opens, reads, writes and renames. No symbolic link is ever followed below
// an open directory, and entries are named by their bare name, so a path cannot lead out of it.
//
// Errors name the entry and the reason; where the directory is, only the caller knows how to say.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace din {

// Owns a file descriptor. Move-only.
class FileDescriptor {
 public:
  explicit FileDescriptor(int fd = -1) : fd_(fd) {}
  ~FileDescriptor();
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }

  int get() const { return fd_; }

 private:
  int fd_;
};

// A regular file, open for reading. Const methods from any thread.
class ReadableFile {
 public:
  ReadableFile(std::string name, FileDescriptor fd, uint64_t size)
      : name_(std::move(name)), fd_(std::move(fd)), size_(size) {}

  const std::string& name() const { return name_; }
  uint64_t size() const { return size_; }  // when it was opened

  // Fills `out`. DATA_LOSS when the file ends before that.
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out) const;
  // Waits until what others wrote to this file is on disk.
  absl::Status Sync() const;

 private:
  std::string name_;
  FileDescriptor fd_;
  uint64_t size_;
};

// A new file, open for writing. One thread.
class WritableFile {
 public:
  WritableFile(std::string name, FileDescriptor fd) : name_(std::move(name)), fd_(std::move(fd)) {}

  absl::Status Append(std::span<const std::byte> bytes);
  absl::Status Sync();

 private:
  std::string name_;
  FileDescriptor fd_;
};

// What changes when a file is replaced or written to.
struct FileStamp {
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // since the epoch
};

// Const methods from any thread.
class Directory {
 public:
  // NOT_FOUND; INVALID_ARGUMENT when the last component is a symbolic link or not a directory.
  static absl::StatusOr<Directory> Open(const std::string& path);

  absl::StatusOr<Directory> OpenDirectory(const std::string& name) const;
  // NOT_FOUND; INVALID_ARGUMENT when it is a link, a pipe, or anything else but a regular file. Does not block.
  absl::StatusOr<ReadableFile> OpenFile(const std::string& name) const;
  // ALREADY_EXISTS.
  absl::StatusOr<WritableFile> CreateFile(const std::string& name) const;
  absl::Status MakeDirectory(const std::string& name) const;

  // Names of the entries, ascending, without "." and "..".
  absl::StatusOr<std::vector<std::string>> List() const;
  absl::StatusOr<bool> Has(const std::string& name) const;
  // Of whatever is there; a link's own.
  absl::StatusOr<FileStamp> StampOf(const std::string& name) const;

  // Atomic. Keep: ALREADY_EXISTS when `to` is there; Replace: whatever file was there is gone.
  absl::Status RenameKeep(const std::string& from, const std::string& to) const;
  absl::Status RenameReplace(const std::string& from, const std::string& to) const;
  // A directory of files; no deeper.
  absl::Status RemoveDirectoryOfFiles(const std::string& name) const;
  absl::Status RemoveFile(const std::string& name) const;

  // True when nobody else holds the lock on this directory; it is given back with the descriptor, at the latest when
  // the process dies.
  bool TryLock() const;
  // Waits until the entries are on disk.
  absl::Status Sync() const;

 private:
  explicit Directory(FileDescriptor fd) : fd_(std::move(fd)) {}
  static absl::StatusOr<Directory> OpenAt(int at, const std::string& path);

  FileDescriptor fd_;
};

// `mkdir -p`: makes what is missing and waits until it is on disk.
absl::Status MakeDirectories(const std::string& path);

// `status` with "<prefix>" in front of its message.
absl::Status Prefixed(const std::string& prefix, const absl::Status& status);

}  // namespace din
