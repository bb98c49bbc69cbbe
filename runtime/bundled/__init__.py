"""The bundled model: a tiny chat model in an ordinary checkpoint folder, the default when no model is named."""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
