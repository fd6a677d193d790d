#include "server/status.h"

#include <string>

#include "gtest/gtest.h"

namespace din {
namespace {

TEST(StatusTest, CodesKeepTheirMeaning) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_EQ(ToGrpcStatus(absl::InvalidArgumentError("m")).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("m")).error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ToGrpcStatus(absl::DeadlineExceededError("m")).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ToGrpcStatus(absl::ResourceExhaustedError("m")).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(ToGrpcStatus(absl::CancelledError("m")).error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_EQ(ToGrpcStatus(absl::UnavailableError("m")).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("m")).error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(ToGrpcStatus(absl::InvalidArgumentError("candidates: 0")).error_message(), "candidates: 0");
}

TEST(StatusTest, LongMessageIsCutBetweenCharacters) {
  const std::string text = std::string(1023, 'x') + "…" + std::string(5000, 'y');
  EXPECT_EQ(ToGrpcStatus(absl::InternalError(text)).error_message(), std::string(1023, 'x'));
}

TEST(StatusTest, ExceptionBecomesTheErrorOfOneRequest) {
  EXPECT_EQ(ToStatus(std::bad_alloc()), absl::ResourceExhaustedError("memory: not enough for this request"));
  EXPECT_EQ(ToStatus(std::length_error("vector::reserve")), absl::InternalError("vector::reserve"));
}

}  // namespace
}  // namespace din
