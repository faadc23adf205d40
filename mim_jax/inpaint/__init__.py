"""The masked inpainting of the paper (Eq. 3-10): generators, discriminator, losses, one update, inference."""
