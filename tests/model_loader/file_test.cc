#include "model_loader/file.h"

#include <sys/stat.h>

#include <filesystem>

#include "tests/model_loader/snapshot_fixture.h"

namespace din {
namespace {

using absl::StatusCode;

class FileTest : public ::testing::Test {
 protected:
  Directory Open() {
    auto directory = Directory::Open(temp_.path());
    EXPECT_TRUE(directory.ok()) << directory.status();
    return *std::move(directory);
  }

  TempDirectory temp_;
};

TEST_F(FileTest, WhatIsWrittenIsReadAtAnyOffset) {
  const Directory directory = Open();
  auto out = directory.CreateFile("a");
  ASSERT_TRUE(out.ok()) << out.status();
  ASSERT_TRUE(out->Append(std::as_bytes(std::span(std::string_view("hello ")))).ok());
  ASSERT_TRUE(out->Append(std::as_bytes(std::span(std::string_view("world")))).ok());
  ASSERT_TRUE(out->Sync().ok());
  const auto in = directory.OpenFile("a");
  ASSERT_TRUE(in.ok()) << in.status();
  EXPECT_EQ(in->size(), 11u);
  std::string text(4, ' ');
  ASSERT_TRUE(in->ReadAt(6, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "worl");
}

TEST_F(FileTest, ReadingBeyondTheEndIsDataLossWithTheOffset) {
  WriteFile(temp_ / "a", "12345");
  const auto in = Open().OpenFile("a");
  ASSERT_TRUE(in.ok());
  std::string text(4, ' ');
  ExpectError(in->ReadAt(3, std::as_writable_bytes(std::span(text))), StatusCode::kDataLoss,
              {"a: ends at byte 5, 2 more expected"});
}

TEST_F(FileTest, NoNameLeadsOutOfTheDirectory) {
  const Directory directory = Open();
  for (const std::string name : {"", ".", "..", "../a", "/etc/passwd", "a/b"}) {
    EXPECT_EQ(directory.OpenFile(name).status().code(), StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(directory.CreateFile(name).status().code(), StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(directory.OpenDirectory(name).status().code(), StatusCode::kInvalidArgument) << name;
    EXPECT_EQ(directory.RemoveFile(name).code(), StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(FileTest, LinksAreNotFollowed) {
  std::filesystem::create_directory(temp_ / "directory");
  WriteFile(temp_ / "file", "x");
  std::filesystem::create_symlink("file", temp_ / "link");
  std::filesystem::create_directory_symlink("directory", temp_ / "directory_link");
  ExpectError(Open().OpenFile("link").status(), StatusCode::kInvalidArgument, {"link: a symbolic link"});
  ExpectError(Open().OpenDirectory("directory_link").status(), StatusCode::kInvalidArgument, {"a symbolic link"});
  ExpectError(Directory::Open(temp_ / "directory_link").status(), StatusCode::kInvalidArgument, {"a symbolic link"});
  ExpectError(Directory::Open(temp_ / "directory_link//").status(), StatusCode::kInvalidArgument, {"a symbolic link"});
}

TEST_F(FileTest, OnlyRegularFilesAreOpened) {
  std::filesystem::create_directory(temp_ / "directory");
  ASSERT_EQ(mkfifo((temp_ / "pipe").c_str(), 0600), 0);
  ExpectError(Open().OpenFile("directory").status(), StatusCode::kInvalidArgument, {"directory: not a regular file"});
  ExpectError(Open().OpenFile("pipe").status(), StatusCode::kInvalidArgument, {"pipe: not a regular file"});
  ExpectError(Open().OpenFile("nothing").status(), StatusCode::kNotFound, {"nothing: open: No such file"});
  ExpectError(Directory::Open(temp_ / "nothing").status(), StatusCode::kNotFound, {"nothing"});
}

TEST_F(FileTest, NothingIsOverwrittenUnlessAskedTo) {
  WriteFile(temp_ / "a", "a");
  WriteFile(temp_ / "b", "b");
  const Directory directory = Open();
  EXPECT_EQ(directory.CreateFile("a").status().code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(directory.MakeDirectory("a").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(directory.RenameKeep("a", "b").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(ReadFile(temp_ / "b"), "b");
  EXPECT_TRUE(directory.RenameReplace("a", "b").ok());
  EXPECT_EQ(ReadFile(temp_ / "b"), "a");
  EXPECT_TRUE(directory.RenameKeep("b", "c").ok());
  EXPECT_EQ(Entries(temp_.path()), std::vector<std::string>{"c"});
}

TEST_F(FileTest, ListIsSortedAndCanBeRepeated) {
  for (const char* name : {"b", "a", ".hidden"}) WriteFile(temp_ / name, "");
  const Directory directory = Open();
  for (int round = 0; round < 2; ++round) {
    const auto names = directory.List();
    ASSERT_TRUE(names.ok());
    EXPECT_EQ(*names, (std::vector<std::string>{".hidden", "a", "b"}));
  }
}

TEST_F(FileTest, ADirectoryIsLockedByOneAtATime) {
  {
    const Directory first = Open();
    EXPECT_TRUE(first.TryLock());
    EXPECT_FALSE(Open().TryLock());
  }
  EXPECT_TRUE(Open().TryLock());
}

TEST_F(FileTest, MakeDirectoriesMakesWhatIsMissing) {
  EXPECT_TRUE(MakeDirectories(temp_ / "a/b/c/").ok());
  EXPECT_TRUE(MakeDirectories(temp_ / "a/b/c").ok());
  EXPECT_TRUE(std::filesystem::is_directory(temp_ / "a/b/c"));
  WriteFile(temp_ / "file", "");
  EXPECT_FALSE(MakeDirectories(temp_ / "file/d").ok());
}

}  // namespace
}  // namespace din
