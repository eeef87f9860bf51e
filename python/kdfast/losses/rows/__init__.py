"""What all losses of rows of logits share: divergence kernels, the maths of a chunk, autograd, the teacher's forms."""
