"""Training on the Graph, in torch: fine-tuning, distillation, quantization-aware training."""
