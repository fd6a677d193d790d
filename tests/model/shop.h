// A small shop: a spec with every kind of feature in every scope, its tensors, and a good request. The tests of decoding
// and the decode fuzzer share it.
#pragma once

#include <string>

#include "google/protobuf/text_format.h"
#include "model/input.h"
#include "proto/model_spec.pb.h"
#include "tests/model/tensor_store.h"

namespace din {

inline constexpr char kShopSpec[] = R"pb(
  format: 1
  id_maps { name: "users" id_type: INT64 identity { size: 5 } out_of_vocabulary: ERROR }
  id_maps { name: "items" id_type: INT64 vocabulary { first_row: 1 } out_of_vocabulary: ROW out_of_vocabulary_row: 0 }
  id_maps { name: "cates" id_type: INT64 identity { size: 50 } out_of_vocabulary: ZERO }
  id_maps { name: "words" id_type: STRING vocabulary {} out_of_vocabulary: ZERO }
  tables { name: "wide" rows: 50 dim: 2 }
  side_tables {
    name: "cate_of" key_type: INT64 rows: 6 kind: ID value_type: INT64 missing_key: MISSING_KEY_ZERO
  }
  side_tables {
    name: "tags_of" key_type: INT64 rows: 5 kind: ID_LIST value_type: INT64 missing_key: MISSING_KEY_ZERO
  }
  side_tables { name: "price_of" key_type: INT64 rows: 61 kind: DENSE width: 2 missing_key: MISSING_KEY_ERROR }
  side_tables {
    name: "title_of" key_type: INT64 rows: 3 kind: ID value_type: STRING missing_key: MISSING_KEY_ZERO
  }
  side_tables {
    name: "stem_of" key_type: STRING rows: 2 kind: ID value_type: STRING missing_key: MISSING_KEY_ZERO
  }
  side_tables { name: "idf_of" key_type: STRING rows: 1 kind: DENSE width: 1 missing_key: MISSING_KEY_ZERO }
  features { name: "user" scope: USER kind: ID id_map: "users" }
  features { name: "age" scope: USER kind: DENSE width: 2 }
  features {
    name: "likes" scope: USER kind: ID_LIST id_map: "words" padding { key: "" } max_length: 3 keep: KEEP_LAST
  }
  features { name: "item" scope: CANDIDATE kind: ID id_map: "items" }
  features {
    name: "cate" scope: CANDIDATE kind: ID id_map: "cates" side { side_table: "cate_of" key: "item" }
  }
  features {
    name: "tags" scope: CANDIDATE kind: ID_LIST id_map: "cates" padding { id: 7 } max_length: 2 keep: KEEP_FIRST
    side { side_table: "tags_of" key: "item" }
  }
  features { name: "price" scope: CANDIDATE kind: DENSE width: 2 side { side_table: "price_of" key: "item" } }
  features {
    name: "h_item" scope: SEQUENCE sequence: "hist" kind: ID id_map: "items" padding { id: 0 }
  }
  features {
    name: "h_cate" scope: SEQUENCE sequence: "hist" kind: ID id_map: "cates"
    side { side_table: "cate_of" key: "h_item" }
  }
  features {
    name: "h_tags" scope: SEQUENCE sequence: "hist" kind: ID_LIST id_map: "cates"
    side { side_table: "tags_of" key: "h_item" }
  }
  features { name: "h_dwell" scope: SEQUENCE sequence: "hist" kind: DENSE width: 1 }
  features { name: "q_word" scope: SEQUENCE sequence: "queries" kind: ID id_map: "words" }
  features {
    name: "q_stem" scope: SEQUENCE sequence: "queries" kind: ID id_map: "words"
    side { side_table: "stem_of" key: "q_word" }
  }
  features {
    name: "q_idf" scope: SEQUENCE sequence: "queries" kind: DENSE width: 1
    side { side_table: "idf_of" key: "q_word" }
  }
  sequences { name: "hist" max_length: 4 keep: KEEP_LAST valid_when_not_padding: "h_item" invalid: DROP }
  sequences { name: "queries" max_length: 3 keep: KEEP_FIRST invalid: DROP }
  labels { feature: "item" side_table: "title_of" }
  labels { feature: "h_item" side_table: "title_of" }
  slots { name: "query" embed { feature: "cate" table: "wide" } }
  slots { name: "key" embed { feature: "h_cate" table: "wide" } }
  attentions {
    name: "att" sequence: "hist" query: "query" key: "key" query_width: QUERY_WIDTH_EQUAL
    input: [ Q, K ]
    layers { units: 2 bias: true activation { kind: RELU } }
    out_activation: NONE scale: SCALE_NONE normalise: NORMALISE_SOFTMAX empty: EMPTY_ZERO
  }
  tower { input { a { name: "query" } } classes: 1 }
)pb";

inline v1::ModelSpec ShopSpec() {
  v1::ModelSpec spec;
  google::protobuf::TextFormat::ParseFromString(kShopSpec, &spec);
  return spec;
}

// Rows of items: 10 -> 1, 20 -> 2, … 60 -> 6, 0 -> 7; any other -> 0, out of vocabulary.
// item      0   10   20   30   40   50   60
// cate      0    1    2    3    4   99    -     99 is out of vocabulary, - has no entry
// tags   7, 8  1 2 3   ()   99    -   ()    -
// price[0]  0   10   20 …                       keys 0 .. 60
inline TensorStore ShopTensors() {
  TensorStore store;
  store.I64("vocab.items.keys", {10, 20, 30, 40, 50, 60, 0});
  store.Strings("vocab.words.keys", {"red", "green", "", "blue"});
  store.I64("side.cate_of.keys", {0, 10, 20, 30, 40, 50});
  store.I32("side.cate_of.values", {0, 1, 2, 3, 4, 99});
  store.I64("side.tags_of.keys", {0, 10, 20, 30, 50});
  store.I64("side.tags_of.values", {7, 8, 1, 2, 3, 99});
  store.I64("side.tags_of.offsets", {0, 2, 5, 5, 6, 6});
  std::vector<float> prices;
  for (int key = 0; key <= 60; ++key) prices.insert(prices.end(), {static_cast<float>(key), 0.5f});
  store.F32("side.price_of.values", {61, 2}, prices);
  store.I64("side.title_of.keys", {10, 20, 30});
  store.Strings("side.title_of.values", {"Anvil", "Bucket", ""});
  store.Strings("side.stem_of.keys", {"red", "reddish"});
  store.Strings("side.stem_of.values", {"green", "r"});
  store.Strings("side.idf_of.keys", {"mauve"});
  store.F32("side.idf_of.values", {1, 1}, {0.75f});
  return store;
}

inline v1::GoldenCase ShopRequest() {
  v1::GoldenCase request;
  google::protobuf::TextFormat::ParseFromString(R"pb(
    features { name: "user" ids: 3 }
    features { name: "age" values: [ 0.25, -1 ] }
    features { name: "likes" keys: [ "blue", "red", "black", "" ] }
    sequences {
      name: "hist"
      columns { name: "h_item" ids: [ 10, 20, 0, 30, 77 ] }
      columns { name: "h_dwell" values: [ 1, 2, 3, 4, 5 ] }
    }
    sequences { name: "queries" columns { name: "q_word" keys: [ "red", "mauve" ] } }
    candidates { name: "item" ids: [ 20, 50, 10, 60 ] }
  )pb", &request);
  return request;
}

inline RequestColumns ColumnsOf(const v1::GoldenCase& request) {
  return {request.features(), request.sequences(), request.candidates()};
}

}  // namespace din
