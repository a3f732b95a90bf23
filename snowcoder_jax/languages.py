"""The 18 languages of the recipe, in one table, and how a file's language is told.

Names and natural mix follow arXiv 2409.02326 section 2 and the StarCoderData weights. Extensions,
file names and interpreters are those of GitHub Linguist's `languages.yml` (MIT, Copyright (c)
2017 GitHub, Inc.), with its TSX taken for TypeScript; what tells apart the languages that share
an extension follows its `heuristics.yml`, and where that leaves a choice the more popular one is
taken. SQL is SQL in every dialect.
"""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Language:
    """One language: how its files are recognised, and how it is written.

    Attributes:
      name: the name used in recipes and reports.
      extensions: lower case, with the dot; one may belong to several languages.
      filenames: exact file names.
      interpreters: names of programs that a shebang line calls.
      line_comment: the marker that starts a comment to the end of the line.
      mix_percent: share of the natural mix, in percent of bytes, before scaling to 100.
    """

    name: str
    extensions: tuple[str, ...]
    filenames: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    line_comment: str = "//"
    mix_percent: float = 0.0


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


LANGUAGES: tuple[Language, ...] = (
    Language(
        "Python",
        _words(
            ".py .cgi .fcgi .gyp .gypi .lmi .py3 .pyde .pyi .pyp .pyt .pyw .rpy .spec .tac .wsgi"
            " .xpy"
        ),
        _words(".gclient DEPS SConscript SConstruct wscript"),
        _words("python python2 python3 py pypy pypy3 uv"),
        "#",
        12.3,
    ),
    Language("Java", _words(".java .jav .jsh"), mix_percent=15.9),
    Language(
        "C++",
        _words(
            ".cpp .c++ .cc .cp .cppm .cxx .h .h++ .hh .hpp .hxx .inc .inl .ino .ipp .ixx .re .tcc"
            " .tpp .txx"
        ),
        mix_percent=8.7,
    ),
    Language("C", _words(".c .cats .h .h.in .idc"), interpreters=("tcc",), mix_percent=10.1),
    Language(
        "JavaScript",
        _words(
            ".js ._js .bones .cjs .es .es6 .frag .gs .jake .javascript .jsb .jscad .jsfl .jslib"
            " .jsm .jspre .jss .jsx .mjs .njs .pac .sjs .ssjs .xsjs .xsjslib"
        ),
        ("Jakefile",),
        _words("bun chakra d8 deno gjs js node nodejs qjs rhino v8 v8-shell"),
        mix_percent=13.2,
    ),
    Language(
        "PHP",
        _words(".php .aw .ctp .fcgi .inc .php3 .php4 .php5 .phps .phpt"),
        _words(".php .php_cs .php_cs.dist Phakefile"),
        ("php",),
        mix_percent=10.9,
    ),
    Language("C#", _words(".cs .cake .cs.pp .csx .linq"), mix_percent=7.3),
    Language("Go", (".go",), mix_percent=4.3),
    Language(
        "TypeScript",
        _words(".ts .cts .mts .tsx"),
        interpreters=_words("bun deno ts-node tsx node"),
        mix_percent=5.6,
    ),
    Language(
        "SQL",
        _words(".sql .ddl .inc .mysql .prc .tab .udf .viw"),
        line_comment="--",
        mix_percent=1.8,
    ),
    Language(
        "Ruby",
        _words(
            ".rb .builder .eye .fcgi .gemspec .god .jbuilder .mspec .pluginspec .podspec .prawn"
            " .rabl .rake .rbi .rbuild .rbw .rbx .ru .ruby .spec .thor .watchr"
        ),
        _words(
            ".irbrc .pryrc .simplecov Appraisals Berksfile Brewfile Buildfile Capfile Dangerfile"
            " Deliverfile Fastfile Gemfile Guardfile Jarfile Mavenfile Podfile Puppetfile Rakefile"
            " Snapfile Steepfile Thorfile Vagrantfile buildfile"
        ),
        _words("ruby macruby rake jruby rbx"),
        "#",
        1.5,
    ),
    Language("Rust", _words(".rs .rs.in"), interpreters=("rust-script",), mix_percent=1.5),
    Language("Jupyter Notebook", (".ipynb",), ("Notebook",), line_comment="#", mix_percent=3.2),
    Language("Scala", _words(".scala .kojo .sbt .sc"), interpreters=("scala",), mix_percent=0.94),
    Language("Kotlin", _words(".kt .ktm .kts"), mix_percent=1.2),
    Language(
        "Shell",
        _words(
            ".sh .bash .bats .cgi .command .fcgi .ksh .pacscript .sbatch .sh.in .slurm .tmux .tool"
            " .trigger .zsh .zsh-theme"
        ),
        _words(
            ".bash_aliases .bash_functions .bash_history .bash_logout .bash_profile .bashrc .cshrc"
            " .envrc .flaskenv .kshrc .login .profile .tmux.conf .xinitrc .xsession .zlogin"
            " .zlogout .zprofile .zshenv .zshrc 9fs PKGBUILD bash_aliases bash_logout bash_profile"
            " bashrc cshrc gradlew kshrc login man mvnw profile tmux.conf xinitrc xsession zlogin"
            " zlogout zprofile zshenv zshrc"
        ),
        _words("ash bash dash ksh mksh pdksh rc sh zsh"),
        "#",
        0.81,
    ),
    Language("Dart", (".dart",), interpreters=("dart",), mix_percent=0.65),
    Language("Swift", (".swift",), mix_percent=0.9),
)

# What its documents hold is a script, made from the notebook.
NOTEBOOK = "Jupyter Notebook"

BY_NAME: dict[str, Language] = {language.name: language for language in LANGUAGES}

# As much of a file as Linguist's heuristics look at.
HEAD_CHARACTERS = 51_200


def _by(field: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGES:
        for key in getattr(language, field):
            found[key] = (*found.get(key, ()), language.name)
    return found


_BY_EXTENSION = _by("extensions")
_BY_FILENAME = _by("filenames")
_BY_INTERPRETER = _by("interpreters")

_OBJECTIVE_C = (
    r"^[ \t]*(?:@(?:interface|class|protocol|property|end|synchronised|selector|implementation)\b"
    r"|#import\s.+\.h[\">])"
)
_CPP = (
    r"^[ \t]*#[ \t]*include[ \t]*<(?:c(?:std\w+|math|assert)|string|vector|map|list|array|bitset"
    r"|queue|stack|memory|utility|functional|algorithm|type_traits|forward_list|unordered_\w+"
    r"|(?:i|o|io)stream)>"
    r"|^[ \t]*template[ \t]*<|^[ \t]*try[ \t]*\{|^[ \t]*constexpr\b|^[ \t]*catch[ \t]*\("
    r"|^[ \t]*(?:class|(?:using[ \t]+|inline[ \t]+)?namespace)[ \t]+\w+"
    r"|^[ \t]*(?:private|public|protected):|__has_cpp_attribute|__cplusplus >|\bstd::\w+"
)
_PREPROCESSOR = r"^[ \t]*#[ \t]*(?:(?:if|ifdef|ifndef|define|pragma)[ \t]+\w|include[ \t]*[<\"])"
_SQL = (
    r"(?i:^[ \t]*(?:create|insert|select|alter|drop|update|delete|grant|declare|with)\s+[\w\"`\[(])"
)
_XML = r"\A\s{0,99}<\?xml"

# Extension -> (language or None for one that is not ours, pattern); the first that is found
# counts, and a rule without a pattern always is. A pattern never runs over a line's end, so that
# no text makes it slow.
_CONTENT_RULES: dict[str, tuple[tuple[str | None, str], ...]] = {
    ".h": ((None, _OBJECTIVE_C), ("C++", _CPP), ("C", "")),
    ".hh": ((None, r"<\?hh"), ("C++", "")),
    ".php": ((None, r"<\?hh"), ("PHP", "")),
    ".cs": ((None, r"![\w ]+methodsFor: "), ("C#", "")),
    ".ts": ((None, r"<TS\b"), (None, _XML), ("TypeScript", "")),
    ".tsx": ((None, _XML), ("TypeScript", "")),
    ".rs": (
        ("Rust", r"^(?:use |fn |mod |pub |macro_rules|impl|#!?\[)"),
        (None, r"#include|#pragma[ \t]+(?:rs|version)|__attribute__"),
        (None, _XML),
        ("Rust", ""),
    ),
    ".sc": ((None, r"(?i:\^(?:this|super)\.|^[ \t]*~\w+[ \t]*=\.)"), ("Scala", "")),
    ".gs": (
        (None, r"^#version[ \t]+[0-9]+\b|^uses (?:java|gw)\.|^\[indent=[0-9]+\]"),
        ("JavaScript", ""),
    ),
    ".es": (
        (None, r"^[ \t]*(?:%%|main[ \t]*\(.*\)[ \t]*->)"),
        ("JavaScript", r"//|[\"']use strict[\"']|export[ \t]+default\s|/\*"),
    ),
    ".re": (
        (None, r"^[ \t]*(?:module[ \t]+type\s|(?:include|open)[ \t]+\w+[ \t]*;)"),
        ("C++", _PREPROCESSOR + r"|^[ \t]*template[ \t]*<"),
    ),
    ".cp": (("C++", _CPP + "|" + _PREPROCESSOR),),
    ".rpy": (("Python", r"^(?:import|from|class|def)\s"),),
    ".pluginspec": ((None, _XML), ("Ruby", "")),
    ".inc": (
        (None, r"(?im:\bmoveq(?:\.l)?[ \t]+#|^[ \t]*move(?:m|p)?\.[bwl]\b|^[ \t]*(?:btst|dbra)\b)"),
        ("PHP", r"^<\?(?:php|=|\s|$)"),
        (None, r"^public[ \t]+SharedPlugin|^methodmap[ \t]+\w|^[ \t]*MarkNativeAsOptional[ \t]*\("),
        (None, r"^[ \t]*include[ \t]*\([ \t]*[\"'][^\"'\n]+\.(?:nasl|inc)[ \t]*[\"']"),
        (None, r"^[ \t]*(?:global|local)_var[ \t]"),
        (None, r"^[ \t]*#(?:declare|local|macro|while)\s"),
        (None, r"(?i:^[ \t]*\{\$(?:mode|ifdef|undef|define) +[a-z0-9_]+\}|^[ \t]*end[.;][ \t]*$)"),
        (None, r"^inherit(?:[ \t]+[\w.-]+)+[ \t]*$"),
        (None, r"(?i:^[^\"m\n]*mov[ \t]+\S+,|^[ \t]+db[ \t]+[a-z\d])"),
        ("C++", _CPP + "|" + _PREPROCESSOR),
        ("SQL", _SQL),
    ),
    # Tables of data, as a rule: SQL only where it reads like it.
    ".tab": (("SQL", _SQL),),
    # Of these another language is the usual one; only a shebang makes them ours.
    ".cgi": (),
    ".fcgi": (),
    ".trigger": (),
    ".frag": (),
    ".spec": (
        ("Python", r"^[ \t]*(?:a[ \t]*=[ \t]*Analysis\(|(?:import|from)[ \t]+\w)"),
        ("Ruby", r"^[ \t]*(?:Gem::Specification|Pod::Spec|require[ \t]+['\"])"),
    ),
}
_COMPILED = {
    extension: tuple((name, re.compile(pattern, re.MULTILINE)) for name, pattern in rules)
    for extension, rules in _CONTENT_RULES.items()
}

_ENV_WORD = re.compile(r"-\S*|\w+=\S*")
_SHELL_EXEC = re.compile(r"^[ \t]*exec[ \t]+(\w+)[ \t].*\$0", re.MULTILINE)
_VERSION = re.compile(r"[\d.]+$")


def _extension(filename: str) -> str | None:
    """The longest ending after a dot that the table has; "" without a dot, None where unknown."""
    at = filename.find(".", 1)
    if at < 0:
        return ""
    lower = filename.lower()
    while at >= 0:
        if lower[at:] in _BY_EXTENSION:
            return lower[at:]
        at = lower.find(".", at + 1)
    return None


def may_be_code(path: str) -> bool:
    """Whether a file may be in one of the 18 by its name, or has no extension that would tell."""
    filename = path.rsplit("/", 1)[-1]
    return filename in _BY_FILENAME or _extension(filename) is not None


def has_known_name(path: str) -> bool:
    """Whether the file's name or extension is one of the table's."""
    filename = path.rsplit("/", 1)[-1]
    return filename in _BY_FILENAME or bool(_extension(filename))


def detect(path: str, head: str = "") -> str | None:
    """The language of a file, or None where it is none of the 18.

    Args:
      path: any path; only its last part is looked at.
      head: the text, or its first `HEAD_CHARACTERS`: for shebangs (which go before extensions,
        as in Linguist) and for extensions that several languages share.
    """
    filename = path.rsplit("/", 1)[-1]
    extension = _extension(filename)
    names = _BY_FILENAME.get(filename)
    if names is None:
        if extension is None:
            return None
        names = _BY_EXTENSION.get(extension, ())
    if head.startswith("#!"):
        called = _by_shebang(head)
        if called:
            return next((name for name in names if name in called), called[0])
    if filename not in _BY_FILENAME and extension in _COMPILED:
        text = head[:HEAD_CHARACTERS]
        return next((name for name, rule in _COMPILED[extension] if rule.search(text)), None)
    return names[0] if names else None


def _by_shebang(head: str) -> tuple[str, ...]:
    words = head[2:512].split("\n", 1)[0].split()
    program = words[0].rsplit("/", 1)[-1] if words else ""
    if program == "env":
        rest = [word for word in words[1:] if not _ENV_WORD.fullmatch(word)]
        program = rest[0].rsplit("/", 1)[-1] if rest else ""
    if program == "sh":
        # A shell line that hands the file on to another program.
        start = "\n".join(head[:2_048].split("\n", 5)[:5])
        if handed_on := _SHELL_EXEC.search(start):
            program = handed_on.group(1)
    return _BY_INTERPRETER.get(program) or _BY_INTERPRETER.get(_VERSION.sub("", program), ())
