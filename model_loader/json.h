// Strict JSON in front of protobuf's parser, which is too kind: it takes duplicate keys and any depth.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "google/protobuf/message.h"

namespace din {

// RFC 8259 JSON with no key twice in one object, at most `max_depth` levels and at most 65,536 objects (each costs a
// parser far more memory than its two bytes), else INVALID_ARGUMENT with the byte offset and the reason.
absl::Status CheckJson(std::string_view text, int max_depth = 32);

// CheckJson, then proto3 JSON; unknown fields are refused, and so is one field under both of its spellings
// ("id_maps", "idMaps"). `what` is named in errors ("model.json").
absl::Status ParseJson(std::string_view text, std::string_view what, google::protobuf::Message& message);

// Proto3 JSON with the proto's field names; pretty has one field a line. Every finite number comes back bit for bit,
// but a zero without its sign. The message's strings must be UTF-8.
std::string FormatJson(const google::protobuf::Message& message);
std::string FormatJsonPretty(const google::protobuf::Message& message);

}  // namespace din
