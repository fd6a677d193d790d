#include "trainer/network.h"

#include "trainer/model_base.h"
#include "trainer/model_deepfm.h"
#include "trainer/model_din.h"
#include "trainer/model_lr.h"
#include "trainer/model_pnn.h"
#include "trainer/model_wide_deep.h"

namespace din {

std::shared_ptr<Network> MakeNetwork(const ModelShape& shape) {
  switch (shape.model) {
    case Model::kLr:
      return std::make_shared<Lr>(shape);
    case Model::kBase:
      return std::make_shared<BaseModel>(shape);
    case Model::kWideDeep:
      return std::make_shared<WideDeep>(shape);
    case Model::kPnn:
      return std::make_shared<Pnn>(shape);
    case Model::kDeepFm:
      return std::make_shared<DeepFm>(shape);
    case Model::kDin:
      return std::make_shared<Din>(shape);
  }
  return nullptr;
}

}  // namespace din
