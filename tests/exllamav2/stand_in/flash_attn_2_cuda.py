"""flash-attn's compiled half: looked for, never called."""
