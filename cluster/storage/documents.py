"""Documents from outside: what is wrong with one, by pydantic's first error; how much YAML is read."""

import yaml
from pydantic import ValidationError


def first_reason(error: ValidationError) -> str:
    """Return where a document is wrong first, and how, without its values: they may be secrets, or long."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc']))[:80] or 'as a whole'}: {first['msg']}"


MAX_YAML_CHARACTERS = 2**20
MAX_YAML_TOKENS = 2**17  # names of ImageNet's 21,841 classes take 90,000
MAX_YAML_DEPTH = 100
BEGIN = (
    *(yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken),
    *(yaml.BlockSequenceStartToken, yaml.BlockMappingStartToken),
)
END = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


def check_yaml(text: str) -> None:
    """Raise ValueError for YAML that takes more time or memory than its size says; YAMLError for none."""
    if len(text) > MAX_YAML_CHARACTERS:
        raise ValueError(f"it has more than {MAX_YAML_CHARACTERS} characters")
    depth = 0
    for number, token in enumerate(yaml.scan(text)):
        if isinstance(token, yaml.AliasToken):  # merged, they fill the memory
            raise ValueError("it has aliases, which are not read")
        depth += isinstance(token, BEGIN) - isinstance(token, END)
        if depth > MAX_YAML_DEPTH:
            raise ValueError(f"its values are nested more than {MAX_YAML_DEPTH} deep")
        if number > MAX_YAML_TOKENS:
            raise ValueError(f"it has more than {MAX_YAML_TOKENS} words and signs")
