// What a client must know to build a request, and what an operator wants to know about a version.
#pragma once

#include "absl/status/status.h"
#include "model_loader/model_holder.h"
#include "proto/scoring.pb.h"

namespace din {

// `models` are all models of the root, live or not. Without a name in the request they may be all that is answered: the
// rest is filled in when exactly one is live. NOT_FOUND for a model that is not live says why.
absl::Status AnswerGetModelMetadata(const ModelRegistry& models, const v1::GetModelMetadataRequest& request,
                                    v1::GetModelMetadataResponse& response);

// The status of a model on the wire.
void EncodeModelStatus(const ModelStatus& model, v1::ModelStatus& out);

}  // namespace din
