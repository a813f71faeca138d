"""Networks: tensors in, tensors out. This package imports torch and safetensors, and nothing of ours."""
