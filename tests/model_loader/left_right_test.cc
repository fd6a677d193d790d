#include "model_loader/left_right.h"

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace din {
namespace {

struct Pair {
  long a = 0;
  long b = 0;
};

TEST(LeftRightTest, ReadsWhatWasWritten) {
  LeftRight<std::string> value;
  EXPECT_EQ(value.Read([](const std::string& s) { return s; }), "");
  for (const std::string text : {"one", "two", "three"}) {
    value.Write([&](std::string& s) { s = text; });
    for (int i = 0; i < 3; ++i) EXPECT_EQ(value.Read([](const std::string& s) { return s; }), text);
  }
}

TEST(LeftRightTest, BothCopiesAreWritten) {
  LeftRight<int> value;
  int calls = 0;
  value.Write([&](int& i) {
    ++i;
    ++calls;
  });
  EXPECT_EQ(calls, 2);
  value.Write([](int& i) { i += 10; });
  EXPECT_EQ(value.Read([](int i) { return i; }), 11);
}

TEST(LeftRightTest, ReadersSeeWholeValuesAndNeverGoBack) {
  LeftRight<Pair> value;
  constexpr long kWrites = 2000;
  std::vector<std::jthread> readers;
  std::atomic<int> wrong = 0;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&] {
      for (long last = 0; last < kWrites;) {
        const Pair seen = value.Read([](const Pair& p) { return p; });
        if (seen.a != seen.b || seen.a < last) ++wrong;
        last = seen.a;
      }
    });
  }
  std::vector<std::jthread> writers;
  for (int w = 0; w < 2; ++w) {
    writers.emplace_back([&] {
      for (int i = 0; i < kWrites / 2; ++i) {
        value.Write([](Pair& p) {
          ++p.a;
          ++p.b;
        });
      }
    });
  }
  writers.clear();
  readers.clear();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(value.Read([](const Pair& p) { return p.a; }), kWrites);
}

TEST(LeftRightTest, WhenWriteReturnsNobodyReadsTheOldValue) {
  // Readers follow a pointer that the writer frees at once (AddressSanitizer and ThreadSanitizer are the judges).
  LeftRight<const long*> value;
  const long* first = new long(0);
  value.Write([&](const long*& p) { p = first; });
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> readers;
  for (int r = 0; r < 2; ++r) {
    readers.emplace_back([&] {
      while (!stop) {
        if (value.Read([](const long* p) { return *p; }) < 0) ++wrong;
      }
    });
  }
  for (long i = 1; i <= 1000; ++i) {
    const long* next = new long(i);
    const long* old = nullptr;
    value.Write([&](const long*& p) {
      old = p;
      p = next;
    });
    const_cast<long&>(*old) = -1;
    delete old;
  }
  stop = true;
  readers.clear();
  EXPECT_EQ(wrong, 0);
  delete value.Read([](const long* p) { return p; });
}

}  // namespace
}  // namespace din
