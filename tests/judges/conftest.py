from tests.judges.transformers_server import transformers_server

__all__ = ["transformers_server"]
