#include "server/model_metadata.h"

#include <chrono>
#include <string>

#include "model/status_macros.h"
#include "server/score_request.h"

namespace din {
namespace {

void EncodeModelMetadata(const LoadedModel& model, v1::GetModelMetadataResponse& response) {
  response.set_model(model.name);
  response.set_version(model.version);
  response.set_digest(model.snapshot->digest());
  *response.mutable_spec() = model.model->spec();
  response.set_instruction_set(std::string(InstructionsOf(model.model->instruction_set(), model.model->precision())));
  response.set_precision(std::string(Name(model.model->precision())));
  response.set_precision_asked(model.precision_asked ? std::string(Name(*model.precision_asked)) : "default");
  response.set_precision_note(model.precision_note);
  response.set_largest_golden_error(model.largest_golden_error);
  response.set_golden_cases(static_cast<uint32_t>(model.snapshot->golden().size()));
  response.set_memory_bytes(model.snapshot->memory_bytes());
  const ResolvedSpec& resolved = model.model->resolved();
  for (size_t f = 0; f < resolved.features.size(); ++f) {
    const v1::Feature& spec = resolved.spec.features(static_cast<int>(f));
    const ResolvedSpec::Feature& feature = resolved.features[f];
    v1::GetModelMetadataResponse::FeatureInfo& info = *response.add_features();
    info.set_name(spec.name());
    info.set_scope(spec.scope());
    info.set_sequence(spec.sequence());
    info.set_kind(spec.kind());
    info.set_id_type(feature.id_type);
    info.set_width(static_cast<uint32_t>(feature.width));
    info.set_required(feature.side_table == kNone);
    if (feature.id_map != kNone) info.set_rows(model.model->decoder().IdMapRows(feature.id_map));
  }
}

}  // namespace

void EncodeModelStatus(const ModelStatus& model, v1::ModelStatus& out) {
  out.set_model(model.name);
  out.set_state(Name(model.state()));
  out.set_live_version(model.live_version);
  if (model.live_version != 0) {
    out.set_live_digest(model.live_digest);
    out.set_live_since_ms(
        std::chrono::duration_cast<std::chrono::milliseconds>(model.live_since.time_since_epoch()).count());
  }
  out.set_loading_version(model.loading_version);
  out.set_verifying(model.verifying);
  if (model.progress != nullptr) {
    out.set_loading_bytes(model.progress->bytes());
    out.set_loading_total_bytes(model.progress->total());
    out.set_loading_starved(model.progress->starved());
  }
  out.set_refused_version(model.refused_version);
  if (model.refused_version != 0) out.set_refused_reason(std::string(model.refused.message()));
  for (const int64_t version : model.kept) out.add_kept_versions(version);
  for (const int64_t version : model.retiring) out.add_retiring_versions(version);
  for (const int64_t version : model.incomplete) out.add_incomplete_versions(version);
  out.set_pinned_version(model.policy.pinned);
  for (const auto& [label, version] : model.policy.labels) (*out.mutable_labels())[label] = version;
  for (const auto& [digest, version] : model.policy.quarantine) out.add_quarantined_versions(version);
  out.set_unloaded(model.policy.unloaded);
}

absl::Status AnswerGetModelMetadata(const ModelRegistry& models, const v1::GetModelMetadataRequest& request,
                                    v1::GetModelMetadataResponse& response) {
  for (const ModelStatus& model : models.Statuses()) {
    response.add_models(model.name);
    EncodeModelStatus(model, *response.add_statuses());
  }
  if (request.model().empty() && models.Names().size() != 1) return absl::OkStatus();
  DIN_ASSIGN_OR_RETURN(const ModelHandle pinned,
                       PinModel(models, request.model(), {request.version(), request.label()}));
  EncodeModelMetadata(*pinned, response);
  return absl::OkStatus();
}

}  // namespace din
