"""What is wrong with a value, in our words: pydantic speaks to programmers."""

from pydantic_core import ErrorDetails

_MUST_BE = {
    "string_type": "a text", "int_type": "a whole number", "int_parsing": "a whole number",
    "int_from_float": "a whole number", "float_type": "a number", "float_parsing": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false", "list_type": "a list", "tuple_type": "a list",
    "dict_type": "an object", "model_type": "an object", "model_attributes_type": "an object",
    "literal_error": "{expected}", "greater_than_equal": "{ge} or more", "less_than_equal": "{le} or less",
    "greater_than": "more than {gt}", "less_than": "less than {lt}", "finite_number": "a finite number",
    "string_too_short": "{min_length} characters or more", "string_too_long": "{max_length} characters or less",
    "union_tag_invalid": "an object whose type is one of {expected_tags}",
    "union_tag_not_found": "an object with a type",
}  # fmt: skip
_JSON_TYPES = {
    "NoneType": "null", "str": "a text", "bool": "true or false", "int": "a number", "float": "a number",
    "list": "a list", "dict": "an object",
}  # fmt: skip


def worded(detail: ErrorDetails) -> str:
    """What it must be; where that is not known, what pydantic or our own check says."""
    if detail["type"] in _MUST_BE:
        facts = detail.get("ctx", {})
        return "must be " + _MUST_BE[detail["type"]].format(**facts)
    return detail["msg"].removeprefix("Value error, ")


def json_type(value: object) -> str:
    """What a value of JSON is, for people."""
    return _JSON_TYPES.get(type(value).__name__, "something else")
