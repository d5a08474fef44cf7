# Parts that know no system: attention, rotary positions, blocks, K/V cache, convolutions, LoRA.
