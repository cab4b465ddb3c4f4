"""Models in the fields of a plugin's options: as strict as the options, or refused."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from pyg_nsa.api import EdgeKind, Operator, Options
from pyg_nsa.nested_models import nested_models


class Plain(BaseModel):
    high: float = 1.0


class Strict(Options):
    high: float = 1.0


class StrictAroundPlain(Options):
    inner: Plain = Plain()


class Tree(Options):
    branches: tuple[Tree, ...] = ()


def options(annotation):
    return type("Made", (Options,), {"__annotations__": {"scale": annotation}, "scale": None})


def build(context, options):
    return None


@pytest.mark.parametrize("declaration", [EdgeKind, Operator])
@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        (Plain, "scale"),
        (Plain | None, "scale"),
        (Strict | Plain, "scale"),
        (list[Plain], "scale"),
        (dict[str, tuple[Plain, ...]], "scale"),
        (Annotated[Plain | None, Field(description="One.")], "scale"),
        (StrictAroundPlain, "scale.inner"),
    ],
)
def test_plain_models_are_refused(declaration, annotation, place):
    with pytest.raises(TypeError) as caught:
        declaration(name="k", build=build, summary="One.", options=options(annotation))
    what = "edge kind" if declaration is EdgeKind else "operator"
    assert str(caught.value) == (
        f"{what} 'k': Plain, the type of option '{place}', must be derived from pyg_nsa.api.Options, as Made is: a plain pydantic "
        "model would take unknown keys, and text for numbers"
    )


def test_models_derived_from_options_are_strict_inside_too():
    found = EdgeKind(name="k", build=build, summary="One.", options=options(list[Strict]))
    for wrong in ({"hihg": 1.0}, {"high": "7"}):
        with pytest.raises(ValidationError):
            found.options.model_validate({"scale": [wrong]})


def test_a_model_within_itself_comes_to_an_end():
    assert nested_models(Tree) == []
    assert nested_models(options(Tree)) == [("scale", Tree)]


def test_all_members_of_a_union_are_found():
    assert [m for _, m in nested_models(options(Strict | Plain | None))] == [Strict, Plain]
