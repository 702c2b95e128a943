"""A strict reader of the small part of LaTeX that derivations use; it knows no renderer.

It refuses what stops pdflatex: commands that neither the kernel nor amsmath nor amssymb defines,
commands in the wrong mode, missing arguments, open groups, environments, delimiters or formulas,
double scripts, alignment marks out of place, and characters unknown to inputenc's utf8.
"""

from __future__ import annotations

import re

# Mandatory arguments of commands, by the mode that they may be used in.
MATH = dict.fromkeys(
    "alpha gamma delta epsilon theta kappa lambda mu nu pi rho sigma tau phi varphi psi omega "
    "Gamma infty sum prod int lim limits to leq le ge ne times cdot pm partial surd vert "
    "lfloor rfloor sin cos tanh sinh cosh arcsin log exp min max , : ; !".split(),
    0,
) | {"frac": 2, "binom": 2, "sqrt": 1, "substack": 1, "operatorname": 1, "bar": 1, "text": 1}
TEXT = {"item": 0, "textbf": 1, "emph": 1, "textsuperscript": 1, "textasciicircum": 0}
TEXT |= {"textbackslash": 0, "textasciitilde": 0, "dots": 0, "maketitle": 0}
ANY = dict.fromkeys(["&", "%", "$", "#", "_", "{", "}", " "], 0)
ENVIRONMENTS = {"enumerate": "text", "aligned": "math", "cases": "math"}
ALIGNED = {"aligned", "cases"}
DELIMITERS = {"(", ")", "[", "]", "|", ".", "\\{", "\\}", "\\lfloor", "\\rfloor", "\\lvert"}
DELIMITERS |= {"\\rvert", "\\lceil", "\\rceil", "/"}
PACKAGES = {"amsmath", "amssymb", "graphicx"}
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)


class TeXError(Exception):
    """What pdflatex would stop at."""


def check_document(document: str) -> None:
    """Raise `TeXError` unless `document` is well formed."""
    head, begin, rest = document.partition("\\begin{document}")
    body, end, after = rest.partition("\\end{document}")
    if not (begin and end) or after.strip() or not head.startswith("\\documentclass{article}\n"):
        raise TeXError("no document")
    loaded = set(",".join(re.findall(r"\\usepackage\{(.*?)\}", head)).split(","))
    if not loaded >= PACKAGES or "[utf8]{inputenc}" not in head or "[T1]{fontenc}" not in head:
        raise TeXError(f"packages: {loaded}")
    macros = {
        name: int(count) for name, count in re.findall(r"\\newcommand\{\\(\w+)\}\[(\d)\]", head)
    }
    for field in re.findall(r"^\\(?:title|author)\{(.*)\}$", head, re.MULTILINE):
        _Reader(field, macros).read_all()
    _Reader(body, macros).read_all()


class _Reader:
    def __init__(self, text: str, macros: dict[str, int]):
        self.tokens = TOKEN.findall(text)
        self.macros = macros
        self.at = 0

    def read_all(self) -> None:
        self.until("", "text", "")
        if self.at < len(self.tokens):
            raise self.error("closed before it was opened")

    def error(self, message: str) -> TeXError:
        return TeXError(f"{message}: {''.join(self.tokens[max(self.at - 12, 0) : self.at + 3])!r}")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def skip_space(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def until(self, stop: str, mode: str, environment: str) -> None:
        """Read to the token `stop`, the end if empty."""
        scripts: set[str] = set()
        while True:
            token = self.peek()
            if token == stop:
                self.at += 1
                return
            if not token or token in ("}", "\\]", "\\right", "\\end"):
                raise self.error(f"open, expected {stop or 'the end'!r}")
            self.at += 1
            if token.isspace():
                continue
            if token in "^_" and mode == "math":
                if token in scripts:
                    raise self.error("double script")
                scripts.add(token)
                self.argument(mode)
                continue
            scripts = set()
            self.one(token, mode, environment)

    def one(self, token: str, mode: str, environment: str) -> None:
        if token == "{":
            self.until("}", mode, "")
        elif token in ("$", "\\["):
            if mode == "math":
                raise self.error("formula in a formula")
            self.until("$" if token == "$" else "\\]", "math", "")
        elif token == "\\begin":
            self.environment(mode)
        elif token == "\\left":
            self.delimiter()
            self.until("\\right", mode, environment)
            self.delimiter()
            if mode != "math":
                raise self.error("delimiter in text")
        elif token in ("&", "\\\\"):
            if environment not in ALIGNED | {"substack"}:
                raise self.error("alignment out of place")
        elif token.startswith("\\"):
            self.command(token[1:], mode)
        elif token in "^_#%~}":
            raise self.error("special character")
        elif not (token.isascii() or (mode == "text" and "À" <= token <= "ž" and token.isalpha())):
            raise self.error(f"unknown character {token!r}")

    def command(self, name: str, mode: str) -> None:
        if name in self.macros:
            if name != "fit" or mode != "math":
                raise self.error("macro out of place")
            self.argument("math")
            return
        known = ANY | (MATH if mode == "math" else TEXT)
        if name not in known:
            raise self.error(f"\\{name} is not defined in {mode}")
        if name == "sqrt" and self.peek() == "[":
            self.until("]", mode, "")
        for _ in range(known[name]):
            inside = "text" if name == "text" else mode
            self.argument(inside, "substack" if name == "substack" else "")

    def argument(self, mode: str, environment: str = "") -> None:
        self.skip_space()
        token = self.next()
        if token == "{":
            self.until("}", mode, environment)
        elif not token or token in "^_&$}" or token in ("\\right", "\\end", "\\]"):
            raise self.error("missing argument")
        else:
            self.one(token, mode, environment)

    def delimiter(self) -> None:
        self.skip_space()
        if self.next() not in DELIMITERS:
            raise self.error("no delimiter")

    def environment(self, mode: str) -> None:
        name = self.name()
        if ENVIRONMENTS.get(name) != mode:
            raise self.error(f"environment {name} in {mode}")
        self.until("\\end", mode, name)
        if self.name() != name:
            raise self.error(f"environment {name} closed as another")

    def name(self) -> str:
        letters = []
        if self.next() != "{":
            raise self.error("environment without a name")
        while (token := self.next()) != "}":
            if not token.isalpha():
                raise self.error("environment without a name")
            letters.append(token)
        return "".join(letters)
