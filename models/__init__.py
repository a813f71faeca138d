"""Networks: tensors in, tensors out. This package imports torch and nothing of ours."""
