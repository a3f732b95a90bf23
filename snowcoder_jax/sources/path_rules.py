"""Paths that hold no work of the repository's own: vendored and generated ones.

`VENDORED` carries over the patterns of GitHub Linguist's `vendor.yml`, and `GENERATED` the rules
of its `generated.rb` that go by name and can hit a file of the 18 languages (both MIT, Copyright
(c) 2017 GitHub, Inc.). What tells a generated file by its content is one of the file rules.
Patterns are searched for in the path inside the repository.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

VENDORED: tuple[str, ...] = (
    r"(^|/)cache/",
    r"^[Dd]ependencies/",
    r"(^|/)dist/",
    r"^deps/",
    r"(^|/)configure$",
    r"(^|/)config\.guess$",
    r"(^|/)config\.sub$",
    r"(^|/)aclocal\.m4",
    r"(^|/)libtool\.m4",
    r"(^|/)ltoptions\.m4",
    r"(^|/)ltsugar\.m4",
    r"(^|/)ltversion\.m4",
    r"(^|/)lt~obsolete\.m4",
    r"(^|/)dotnet-install\.(ps1|sh)$",
    r"(^|/)cpplint\.py",
    r"(^|/)node_modules/",
    r"(^|/)\.yarn/releases/",
    r"(^|/)\.yarn/plugins/",
    r"(^|/)\.yarn/sdks/",
    r"(^|/)\.yarn/versions/",
    r"(^|/)\.yarn/unplugged/",
    r"(^|/)_esy$",
    r"(^|/)bower_components/",
    r"^rebar$",
    r"(^|/)erlang\.mk",
    r"(^|/)Godeps/_workspace/",
    r"(^|/)testdata/",
    r"(^|/)\.indent\.pro",
    r"(\.|-)min\.(js|css)$",
    r"([^\s]*)import\.(css|less|scss|styl)$",
    r"(^|/)bootstrap([^/.]*)(\..*)?\.(js|css|less|scss|styl)$",
    r"(^|/)custom\.bootstrap([^\s]*)(js|css|less|scss|styl)$",
    r"(^|/)font-?awesome\.(css|less|scss|styl)$",
    r"(^|/)font-?awesome/.*\.(css|less|scss|styl)$",
    r"(^|/)foundation\.(css|less|scss|styl)$",
    r"(^|/)normalize\.(css|less|scss|styl)$",
    r"(^|/)skeleton\.(css|less|scss|styl)$",
    r"(^|/)[Bb]ourbon/.*\.(css|less|scss|styl)$",
    r"(^|/)animate\.(css|less|scss|styl)$",
    r"(^|/)materialize\.(css|less|scss|styl|js)$",
    r"(^|/)select2/.*\.(css|scss|js)$",
    r"(^|/)bulma\.(css|sass|scss)$",
    r"(3rd|[Tt]hird)[-_]?[Pp]arty/",
    r"(^|/)vendors?/",
    r"(^|/)[Ee]xtern(als?)?/",
    r"(^|/)[Vv]+endor/",
    r"^debian/",
    r"(^|/)run\.n$",
    r"(^|/)bootstrap-datepicker/",
    r"(^|/)jquery([^.]*)\.js$",
    r"(^|/)jquery\-\d\.\d+(\.\d+)?\.js$",
    r"(^|/)jquery\-ui(\-\d\.\d+(\.\d+)?)?(\.\w+)?\.(js|css)$",
    r"(^|/)jquery\.(ui|effects)\.([^.]*)\.(js|css)$",
    r"(^|/)jquery\.fn\.gantt\.js",
    r"(^|/)jquery\.fancybox\.(js|css)",
    r"(^|/)fuelux\.js",
    r"(^|/)jquery\.fileupload(-\w+)?\.js$",
    r"(^|/)jquery\.dataTables\.js",
    r"(^|/)bootbox\.js",
    r"(^|/)pdf\.worker\.js",
    r"(^|/)slick\.\w+.js$",
    r"(^|/)Leaflet\.Coordinates-\d+\.\d+\.\d+\.src\.js$",
    r"(^|/)leaflet\.draw-src\.js",
    r"(^|/)leaflet\.draw\.css",
    r"(^|/)Control\.FullScreen\.css",
    r"(^|/)Control\.FullScreen\.js",
    r"(^|/)leaflet\.spin\.js",
    r"(^|/)wicket-leaflet\.js",
    r"(^|/)\.sublime-project",
    r"(^|/)\.sublime-workspace",
    r"(^|/)\.vscode/",
    r"(^|/)prototype(.*)\.js$",
    r"(^|/)effects\.js$",
    r"(^|/)controls\.js$",
    r"(^|/)dragdrop\.js$",
    r"(.*?)\.d\.ts$",
    r"(^|/)mootools([^.]*)\d+\.\d+.\d+([^.]*)\.js$",
    r"(^|/)dojo\.js$",
    r"(^|/)MochiKit\.js$",
    r"(^|/)yahoo-([^.]*)\.js$",
    r"(^|/)yui([^.]*)\.js$",
    r"(^|/)ckeditor\.js$",
    r"(^|/)tiny_mce([^.]*)\.js$",
    r"(^|/)tiny_mce/(langs|plugins|themes|utils)",
    r"(^|/)ace-builds/",
    r"(^|/)fontello(.*?)\.css$",
    r"(^|/)MathJax/",
    r"(^|/)Chart\.js$",
    r"(^|/)[Cc]ode[Mm]irror/(\d+\.\d+/)?(lib|mode|theme|addon|keymap|demo)",
    r"(^|/)shBrush([^.]*)\.js$",
    r"(^|/)shCore\.js$",
    r"(^|/)shLegacy\.js$",
    r"(^|/)angular([^.]*)\.js$",
    r"(^|\/)d3(\.v\d+)?([^.]*)\.js$",
    r"(^|/)react(-[^.]*)?\.js$",
    r"(^|/)flow-typed/.*\.js$",
    r"(^|/)modernizr\-\d\.\d+(\.\d+)?\.js$",
    r"(^|/)modernizr\.custom\.\d+\.js$",
    r"(^|/)knockout-(\d+\.){3}(debug\.)?js$",
    r"(^|/)docs?/_?(build|themes?|templates?|static)/",
    r"(^|/)admin_media/",
    r"(^|/)env/",
    r"(^|/)fabfile\.py$",
    r"(^|/)waf$",
    r"(^|/)\.osx$",
    r"\.xctemplate/",
    r"\.imageset/",
    r"(^|/)Carthage/",
    r"(^|/)Sparkle/",
    r"(^|/)Crashlytics\.framework/",
    r"(^|/)Fabric\.framework/",
    r"(^|/)BuddyBuildSDK\.framework/",
    r"(^|/)Realm\.framework",
    r"(^|/)RealmSwift\.framework",
    r"(^|/)\.gitattributes$",
    r"(^|/)\.gitignore$",
    r"(^|/)\.gitmodules$",
    r"(^|/)gradlew$",
    r"(^|/)gradlew\.bat$",
    r"(^|/)gradle/wrapper/",
    r"(^|/)mvnw$",
    r"(^|/)mvnw\.cmd$",
    r"(^|/)\.mvn/wrapper/",
    r"-vsdoc\.js$",
    r"\.intellisense\.js$",
    r"(^|/)jquery([^.]*)\.validate(\.unobtrusive)?\.js$",
    r"(^|/)jquery([^.]*)\.unobtrusive\-ajax\.js$",
    r"(^|/)[Mm]icrosoft([Mm]vc)?([Aa]jax|[Vv]alidation)(\.debug)?\.js$",
    r"(^|/)[Pp]ackages\/.+\.\d+\/",
    r"(^|/)extjs/.*?\.js$",
    r"(^|/)extjs/.*?\.xml$",
    r"(^|/)extjs/.*?\.txt$",
    r"(^|/)extjs/.*?\.html$",
    r"(^|/)extjs/.*?\.properties$",
    r"(^|/)extjs/\.sencha/",
    r"(^|/)extjs/docs/",
    r"(^|/)extjs/builds/",
    r"(^|/)extjs/cmd/",
    r"(^|/)extjs/examples/",
    r"(^|/)extjs/locale/",
    r"(^|/)extjs/packages/",
    r"(^|/)extjs/plugins/",
    r"(^|/)extjs/resources/",
    r"(^|/)extjs/src/",
    r"(^|/)extjs/welcome/",
    r"(^|/)html5shiv\.js$",
    r"(^|/)[Tt]ests?/fixtures/",
    r"(^|/)[Ss]pecs?/fixtures/",
    r"(^|/)cordova([^.]*)\.js$",
    r"(^|/)cordova\-\d\.\d(\.\d)?\.js$",
    r"(^|/)foundation(\..*)?\.js$",
    r"(^|/)Vagrantfile$",
    r"(^|/)\.[Dd][Ss]_[Ss]tore$",
    r"(^|/)inst/extdata/",
    r"(^|/)octicons\.css",
    r"(^|/)sprockets-octicons\.scss",
    r"(^|/)activator$",
    r"(^|/)activator\.bat$",
    r"(^|/)proguard\.pro$",
    r"(^|/)proguard-rules\.pro$",
    r"(^|/)puphpet/",
    r"(^|/)\.google_apis/",
    r"(^|/)Jenkinsfile$",
    r"(^|/)\.gitpod\.Dockerfile$",
    r"(^|/)\.github/",
    r"(^|/)\.obsidian/",
    r"(^|/)\.teamcity/",
    r"(^|/)xvba_modules/",
)  # fmt: skip

GENERATED: tuple[str, ...] = (
    r"(^|/)\.idea/",
    r"(^|/)Pods/",
    r"(^|/)Carthage/Build/",
    r"(^|/)__generated__/",
    r"(?i:\.designer\.cs$)",
    r"(?i:\.feature\.cs$)",
    r"node_modules/",
    r"vendor/((?!-)[-0-9A-Za-z]+(?<!-)\.)+(com|edu|gov|in|me|net|org|fm|io)",
    r"Godeps/",
    r".\.zep\.(c|h|php)$",
    r"(^|/)\.pnp\..*$",
)

# Almost all patterns start at a part of the path, with one of a few characters. Trying those only
# there is two orders of magnitude faster than one search for all of them.
_AT_PART = re.compile(r"\(\^\|\\?/\)")
_ANY_START = re.compile(r"\((?:\[\^\\s\]\*|\.\*\?)\)")
_FIRST = re.compile(r"\\(.)|\[(\w+)\]|(\w)")


class _Patterns:
    def __init__(self, patterns: tuple[str, ...]) -> None:
        by_first: dict[str, list[str]] = {}
        anywhere = []
        for pattern in patterns:
            at_part = _AT_PART.match(pattern)
            if at_part is None:
                anywhere.append(_ANY_START.sub("", pattern, count=1))
                continue
            rest = pattern[at_part.end() :]
            first = _FIRST.match(rest)
            assert first is not None, pattern
            for character in first.group(first.lastindex or 0):
                by_first.setdefault(character, []).append(rest)
        self._by_first = {c: re.compile("|".join(p)).match for c, p in by_first.items()}
        self._anywhere = re.compile("|".join(anywhere)).search

    def found_in(self, path: str) -> bool:
        start = 0
        while True:
            match = self._by_first.get(path[start : start + 1])
            if match is not None and match(path, start):
                return True
            start = path.find("/", start) + 1
            if start == 0:
                return self._anywhere(path) is not None


_VENDORED, _GENERATED = _Patterns(VENDORED), _Patterns(GENERATED)


def refused(path: str, said: Mapping[str, bool] = MappingProxyType({})) -> str | None:
    """ "vendored", "generated", or None for the path of a file, or of a folder with a slash at
    its end: what is true of a folder is true of all that is in it.

    Args:
      said: by the repository itself: which of the two is true, or is not, whatever the path.
    """
    for reason, patterns in (("vendored", _VENDORED), ("generated", _GENERATED)):
        if said[reason] if reason in said else patterns.found_in(path):
            return reason
    return None
