"""The style of a report's page: system fonts, light and dark, narrow and wide windows, paper.

Colours of marks: Okabe and Ito (2008), "Color universal design", told apart by the colour-blind; darker on white where
their own contrast is below 3. Texts have a contrast of 4.5 at least, in both modes (a test computes it).
"""

from __future__ import annotations

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f4f6f8",
    "ink": "#1b1f24",
    "muted": "#555d66",
    "line": "#c9d0d7",
    "link": "#00558a",
    "alert": "#8a2d00",
    "pretrained": "#0072b2",
    "grown": "#c65400",
    "random": "#5f5f5f",
    "frozen": "#00855f",
    "published": "#a3498a",
}
DARK = {
    "paper": "#14181d",
    "panel": "#1e242b",
    "ink": "#e8ebee",
    "muted": "#a9b3bd",
    "line": "#3d4750",
    "link": "#7cc4f2",
    "alert": "#ffb38a",
    "pretrained": "#56b4e9",
    "grown": "#f0a030",
    "random": "#b5b5b5",
    "frozen": "#2fc79a",
    "published": "#dc8fbf",
}
MARKS = ("pretrained", "grown", "random", "frozen", "published")

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0 auto;padding:1.5rem 1.25rem 4rem;max-width:74rem;background:var(--paper);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",Arial,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .4rem}
h2{font-size:1.3rem;line-height:1.25;margin:3rem 0 .7rem;padding-top:.8rem;border-top:1px solid var(--line)}
h3{font-size:1.07rem;margin:2rem 0 .5rem}
h4{font-size:.95rem;margin:1.4rem 0 .4rem}
h1,h2,h3,h4,p,li,summary,figcaption,caption{overflow-wrap:anywhere}
p,ul{max-width:46rem;margin:.5rem 0}
ul{padding-left:1.3rem}
header p,.note,.of{color:var(--muted);font-size:.9rem}
.of{margin:.8rem 0 .2rem}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--link);outline-offset:2px}
section:focus{outline:none}
.skip{position:absolute;left:-99rem;top:.5rem;padding:.4rem .8rem;background:var(--paper);z-index:2}
.skip:focus{left:.5rem}
nav{margin:1rem 0 0;font-size:.9rem}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;list-style:none;padding:0;max-width:none}
nav a{display:inline-block;padding:.2rem 0}
.lead{font-size:1.16rem;line-height:1.5;max-width:52rem;padding:.9rem 1.1rem;background:var(--panel);
border-left:4px solid var(--link)}
.warning{color:var(--alert);font-weight:600}
.scroll{overflow-x:auto;max-width:100%;margin:.7rem 0}
table{border-collapse:separate;border-spacing:0;font-size:.9rem;line-height:1.25rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:0 0 .4rem}
caption span{position:sticky;left:0;display:inline-block;max-width:min(46rem,calc(100vw - 2.6rem));font-weight:600}
th,td{padding:.3125rem .8rem;text-align:right;vertical-align:top;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{vertical-align:bottom;white-space:normal;min-width:5.2rem;border-bottom:2px solid var(--muted);font-weight:600}
th:first-child,th.w,td.w{text-align:left}
td.w{white-space:normal;overflow-wrap:break-word;min-width:7.5rem;max-width:24rem}
tbody th{font-weight:500;white-space:normal;overflow-wrap:break-word;min-width:9.5rem;max-width:17rem}
th:first-child{padding-left:.2rem;position:sticky;left:0;background:var(--paper)}
tr.break>*{border-top:2px solid var(--muted)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,31rem),1fr));gap:1rem 2rem;align-items:start}
figure{margin:0;min-width:0}
.chart{margin:.8rem 0;break-inside:avoid}
.chart figcaption{font-weight:600;font-size:.9rem}
svg{display:block;width:100%;max-width:35rem;min-width:28rem;height:auto;overflow:visible;
font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",Arial,sans-serif}
.t{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}
svg.rows{max-width:30rem;min-width:20rem}
.muted{fill:var(--muted)}
.grid{stroke:var(--line);stroke-width:1}
.axis,.zero{stroke:var(--muted);stroke-width:1.2;fill:none}
.group{stroke:var(--muted);stroke-width:1.2;stroke-dasharray:2 3}
.single{stroke:var(--ink);stroke-width:1.4;opacity:.55}
.leader{stroke:var(--muted);stroke-width:1}
.bar{stroke-width:2.2;stroke:var(--ink)}
.front{fill:none;stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
.mark{fill:var(--ink);stroke:var(--paper);stroke-width:1.2}
.m-published{fill:none}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr));gap:.7rem}
.pictures figcaption{font-size:.82rem;line-height:1.3;color:var(--muted)}
.pictures img{display:block;width:100%;height:auto;border:1px solid var(--line)}
.gone{display:grid;place-items:center;aspect-ratio:1;border:1px dashed var(--muted);color:var(--muted);font-size:.82rem}
details{margin:.8rem 0}
summary{cursor:pointer;padding:.3rem 0;color:var(--link)}
pre{margin:.2rem 0;padding:.5rem .7rem;background:var(--panel);white-space:pre-wrap;overflow-wrap:anywhere;
font:.82rem/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace}
@media (max-width:40rem){
body{padding:1rem .9rem 3rem}
h1{font-size:1.4rem}
.lead{font-size:1.06rem;padding:.7rem .8rem}
nav a{padding:.45rem 0}
th,td{padding:.3125rem .5rem}
tbody th{min-width:6.5rem;max-width:8.5rem}
.pictures{grid-template-columns:repeat(auto-fill,minmax(8rem,1fr))}
}
@media print{
body{max-width:none;padding:0;font-size:10pt}
nav,.skip{display:none}
.scroll{overflow:visible}
svg,svg.rows{min-width:0}
h2,h3,h4{break-after:avoid}
tr,img{break-inside:avoid}
th,td{padding:.2rem .4rem}
th:first-child{position:static}
details::details-content{content-visibility:visible;height:auto}
}
"""


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _of_marks() -> str:
    rules = [f".m-{name}{{fill:var(--{name})}}.b-{name}{{stroke:var(--{name})}}" for name in MARKS[:-1]]
    rules.append(".m-published{fill:none;stroke:var(--published);stroke-width:2.4}")
    return "\n".join(rules)


STYLE = (
    f":root{{color-scheme:light dark;{_variables(LIGHT)}}}\n"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    f"{_RULES}{_of_marks()}\n"
)
