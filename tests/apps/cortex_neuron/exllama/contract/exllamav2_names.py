"""What of exllamav2 the adapter may use, and the committed table of it.

`python -m tests.apps.cortex_neuron.exllama.contract.exllamav2_names FOLDER` writes the table anew
from the package's folder; the suite of the real package proves that it is still true.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.apps.cortex_neuron.exllama.contract.table import Source, Table

NAMES: Final = (
    "exllamav2.ExLlamaV2",
    "exllamav2.ExLlamaV2Cache",
    "exllamav2.ExLlamaV2Cache_Q4",
    "exllamav2.ExLlamaV2Cache_Q6",
    "exllamav2.ExLlamaV2Cache_Q8",
    "exllamav2.ExLlamaV2Cache_TP",
    "exllamav2.ExLlamaV2Config",
    "exllamav2.ExLlamaV2Lora",
    "exllamav2.ExLlamaV2Tokenizer",
    "exllamav2.attn.has_flash_attn_with_paged",
    "exllamav2.generator.ExLlamaV2DynamicGenerator",
    "exllamav2.generator.ExLlamaV2DynamicJob",
    "exllamav2.generator.ExLlamaV2Sampler",
    "exllamav2.generator.filters.ExLlamaV2Filter",
)
TABLE: Final = Path(__file__).with_name("exllamav2.json")


def committed() -> Table:
    """Return the table in the repository."""
    return Table(**json.loads(TABLE.read_text()))


def main() -> None:
    """Write the table."""
    table = Source(Path(sys.argv[1])).table(NAMES)
    parts = [
        f"{json.dumps(part)}: {_written(said)}" for part, said in sorted(asdict(table).items())
    ]
    TABLE.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def _written(part: dict[str, list[str]] | list[str]) -> str:
    """Return a part as JSON, with a line for each name."""
    if isinstance(part, list):
        return json.dumps(part)
    rows = [f" {json.dumps(name)}: {json.dumps(part[name])}" for name in sorted(part)]
    return "{\n" + ",\n".join(rows) + "\n}"


if __name__ == "__main__":
    main()
