from __future__ import annotations

import json

from pyg_nsa.errors import ConfigError, Problem

PROBLEM = Problem(
    path="edges[1].options.normalise",
    message="unknown key 'normalise', 100% sure:\nreally",
    code="extra_forbidden",
    file="a,b:c.yaml",
    line=8,
    column=7,
    plugin="edge kind 'weighted' of fake 1.0",
    allowed=("clip", "normalize"),
    suggestion="normalize",
)


def test_as_plain_data():
    assert PROBLEM.to_dict() == {
        "path": "edges[1].options.normalise",
        "message": "unknown key 'normalise', 100% sure:\nreally",
        "code": "extra_forbidden",
        "file": "a,b:c.yaml",
        "line": 8,
        "column": 7,
        "plugin": "edge kind 'weighted' of fake 1.0",
        "allowed": ["clip", "normalize"],
        "suggestion": "normalize",
    }
    assert set(Problem("", "x").to_dict()) == set(PROBLEM.to_dict())


def test_as_json():
    error = ConfigError([PROBLEM, Problem("", "is empty – leer")])
    assert json.loads(error.to_json()) == {
        "problems": [problem.to_dict() for problem in error.problems]
    }
    assert "–" in error.to_json()
    assert "\n" not in error.to_json(indent=None)


def test_as_a_github_annotation():
    assert PROBLEM.to_github() == (
        "::error file=a%2Cb%3Ac.yaml,line=8,col=7,title=pyg-nsa%3A extra_forbidden::"
        "edges[1].options.normalise: unknown key 'normalise', 100%25 sure:%0Areally"
        "%0Adid you mean 'normalize'?%0Aallowed: clip, normalize"
        "%0Achecked by: edge kind 'weighted' of fake 1.0"
    )


def test_a_github_annotation_without_a_place():
    error = ConfigError([Problem("", "one\r\ntwo"), Problem("heads", "three")])
    assert error.to_github() == (
        "::error title=pyg-nsa%3A invalid::one%0D%0Atwo\n::error title=pyg-nsa%3A invalid::heads: three"
    )
