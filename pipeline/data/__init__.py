"""Images to rows and batches of tensors."""
