"""The Triton backend: gpt-oss on one GPU, MXFP4 experts read as they are stored.

Read in this order: `layout` (how expert weights lie in memory), `numerics` (helpers of all kernels), then one
module per stage of a layer: `linear`, `attention_decode`, `attention_prefill`, `router`, `experts` (few tokens),
`grouped` (many tokens), `unembedding` (logits and sampling); then `weights` and `cache` (what lives on the card),
`model` (the forward pass), `backend` (the engine's seam) and `graphs` (one CUDA graph per batch size). `variants`
decides which kernels a card gets.

Rounding: products accumulate in fp32, and a value is rounded to the activation type exactly when it is stored to
memory. So the fused stages round less often than `gpt_oss.torch`, never more often.
"""
