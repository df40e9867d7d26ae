// The Pixtral tower, the patch merger and the projector: pixels to embedding rows
// (transformers: modeling_pixtral.py, modeling_mistral3.py).
#pragma once

#include "model/image.h"
#include "model/model.h"
#include "model/weights.h"

namespace bise {

Result<ImageFeatures> vision_forward(const ModelConfig& config, const VisionWeights& weights,
                                     Backend& backend, const ProcessedImage& image);

}  // namespace bise
