// What was released stays readable: no field or enum value of proto/released.binpb is renumbered, retyped or reused.
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"

namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorSet;

FileDescriptorSet Read(const std::string& path) {
  FileDescriptorSet set;
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good() && set.ParseFromIstream(&in)) << path;
  return set;
}

// "din.v1.Layer.units" -> what must not change about it.
using Facts = std::map<std::string, std::string>;

void AddEnum(const std::string& scope, const EnumDescriptorProto& e, Facts& facts) {
  for (const auto& value : e.value()) {
    facts[scope + "." + e.name() + "." + value.name()] = std::to_string(value.number());
  }
}

void AddMessage(const std::string& scope, const DescriptorProto& message, Facts& facts) {
  const std::string name = scope + "." + message.name();
  for (const FieldDescriptorProto& field : message.field()) {
    facts[name + "." + field.name()] = std::to_string(field.number()) + " " + FieldDescriptorProto::Type_Name(field.type()) +
                                       " " + field.type_name() + " " + FieldDescriptorProto::Label_Name(field.label()) +
                                       (field.has_oneof_index() ? " in a oneof" : "");
  }
  for (const auto& nested : message.nested_type()) AddMessage(name, nested, facts);
  for (const auto& e : message.enum_type()) AddEnum(name, e, facts);
}

Facts FactsOf(const FileDescriptorSet& set) {
  Facts facts;
  for (const auto& file : set.file()) {
    for (const auto& message : file.message_type()) AddMessage(file.package(), message, facts);
    for (const auto& e : file.enum_type()) AddEnum(file.package(), e, facts);
    for (const auto& service : file.service()) {
      for (const auto& method : service.method()) {
        facts[file.package() + "." + service.name() + "." + method.name()] = method.input_type() + " -> " + method.output_type();
      }
    }
  }
  return facts;
}

TEST(ProtoCompatibilityTest, NothingReleasedIsRenumberedRetypedOrRemoved) {
  const Facts released = FactsOf(Read(std::string(std::getenv("DIN_SOURCE_DIR")) + "/proto/released.binpb"));
  const Facts current = FactsOf(Read(DIN_CURRENT_DESCRIPTOR));
  ASSERT_GT(released.size(), 100u);
  for (const auto& [name, fact] : released) {
    const auto it = current.find(name);
    ASSERT_NE(it, current.end()) << name << " was removed or renamed; released as: " << fact;
    EXPECT_EQ(it->second, fact) << name;
  }
}

TEST(ProtoCompatibilityTest, ReleasedDescriptorIsUpToDate) {
  EXPECT_EQ(FactsOf(Read(std::string(std::getenv("DIN_SOURCE_DIR")) + "/proto/released.binpb")),
            FactsOf(Read(DIN_CURRENT_DESCRIPTOR)))
      << "something was added: record it with\n"
         "  protoc -I. --descriptor_set_out=proto/released.binpb proto/model_spec.proto proto/scoring.proto "
         "proto/admin.proto";
}

}  // namespace
