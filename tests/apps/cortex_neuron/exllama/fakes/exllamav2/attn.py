"""Whether pages can be used."""

has_flash_attn_with_paged = True
