"""Parameters are read from docstrings as they are written."""

from components.text.numpydoc import Parameter, parameters

DOCSTRING = """Sum the elements.

Parameters
----------
a : array_like, shape (n,)
    Elements to sum.
axis : int or None, optional, default: None
    Axis to sum over.

    By default, all are summed.
x1, x2 : int
    Left out, as two share a description.
bare
    Left out, as it has no type.
*args : tuple
    Left out, as its name is none.
keepdims : {True, False}, default=False
    Whether axes remain.
last : str

Returns
-------
total : float
    Left out, as it is not a parameter.
"""


def test_a_parameter_has_a_type_a_default_and_its_lines():
    a, axis, keepdims = parameters(DOCSTRING)
    assert a == Parameter("a", "array_like, shape (n,)", "", "a : array_like, shape (n,)\n    Elements to sum.")
    assert (axis.name, axis.kind, axis.default) == ("axis", "int or None", "None")
    assert axis.described.endswith("\n\n    By default, all are summed.")
    assert (keepdims.kind, keepdims.default) == ("{True, False}", "False")


def test_a_docstring_without_the_section_has_none():
    assert parameters("Return it.\n\nReturns\n-------\nx : int\n    It.") == []
    assert parameters("") == []
