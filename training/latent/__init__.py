"""Tools on the latents of a trained generator; `space` says what they know of one."""
