"""The one style sheet of every report, and its colors.

Colors are those of Okabe and Ito (2008, "Color universal design"), ordered per theme so that every one used
for a mark keeps 3:1 against its paper and every text color 4.5:1 (WCAG 2.2, 1.4.3 and 1.4.11; a test
measures them). Lines are also told apart by dash, so color is never the only difference.
"""

from __future__ import annotations

# name -> (light, dark)
COLORS: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#15171c"),
    "raised": ("#f4f5f7", "#1f232b"),
    "ink": ("#1a1c20", "#e8eaed"),
    "soft": ("#565c66", "#a9b0bb"),
    "rule": ("#c9cdd4", "#3d434e"),
    "link": ("#00568a", "#7cc4f0"),
    "good": ("#00664a", "#3fd0a4"),
    "bad": ("#a34700", "#ff9a57"),
    "series-1": ("#0072b2", "#56b4e9"),
    "series-2": ("#d55e00", "#e69f00"),
    "series-3": ("#009e73", "#f0e442"),
    "series-4": ("#b0588a", "#cc79a7"),  # light: Okabe-Ito purple one step darker, it has only 2.9:1 on white
    "series-5": ("#1a1c20", "#e8eaed"),
}
DASHES = ("none", "7 4", "2 3", "10 3 2 3", "4 2")  # one per series, in pixels


def _variables(theme: int) -> str:
    return "".join(f"--{name}:{pair[theme]};" for name, pair in COLORS.items())


_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
 font:1rem/1.55 system-ui,"Segoe UI","Noto Sans","Charis SIL","Doulos SIL",sans-serif}
main,body>header,body>footer{max-width:68rem;margin-inline:auto;padding-inline:1rem}
body>header{padding-block:1.5rem .5rem}
body>footer{padding-block:1rem 2rem;color:var(--soft);font-size:.875rem}
h1{font-size:1.6rem;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2rem 0 .5rem;border-block-end:1px solid var(--rule);padding-block-end:.25rem}
p,dd,li,figcaption,pre{overflow-wrap:anywhere}
th,td{overflow-wrap:break-word;max-width:26rem}
td:not(.number){min-width:7rem}
p{margin-block:.5rem;max-width:46rem}
.subtitle{color:var(--soft);margin-block:.25rem}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--link);
 outline-offset:2px}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;padding:0;margin:.5rem 0}
nav a{display:inline-block;padding-block:.2rem}
dl{display:grid;grid-template-columns:minmax(7rem,max-content) 1fr;gap:.25rem 1.25rem;margin-block:.75rem}
dt{color:var(--soft)}
dd{margin:0;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto;margin-block:.75rem}
table{border-collapse:collapse;font-size:.9375rem}
caption{text-align:start;color:var(--soft);padding-block-end:.35rem}
th,td{padding:.35rem .75rem .35rem 0;text-align:start;vertical-align:top;
 border-block-end:1px solid var(--rule)}
thead th{border-block-end:2px solid var(--ink);vertical-align:bottom}
tbody th{font-weight:600}
.number{text-align:end;font-variant-numeric:tabular-nums;white-space:nowrap}
.transcript{unicode-bidi:isolate}
[lang]{font-variant-ligatures:common-ligatures}
figure{margin:1rem 0;max-width:46rem}
figcaption{font-weight:600;margin-block-end:.5rem}
figcaption small{display:block;font-weight:400;color:var(--soft)}
svg.chart{display:block;overflow:visible;direction:ltr;width:calc(100% - 4.5rem);margin-left:3.5rem}
svg.bars{width:calc(100% - 5.5rem);margin-left:0}
svg text{font-size:.75rem;fill:var(--ink)}
svg .axis{fill:var(--soft)}
svg line{stroke:var(--rule)}
svg .line{fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;list-style:none;padding:0;margin:.25rem 0 .5rem}
.legend svg{width:2rem;height:.6rem;margin-inline-end:.4rem}
details{margin-block:.5rem}
summary{cursor:pointer;color:var(--link);padding-block:.2rem}
pre{background:var(--raised);padding:.75rem 1rem;white-space:pre-wrap;border-radius:.25rem;
 margin-block:.5rem}
code,.codes{font-family:ui-monospace,"Cascadia Mono","DejaVu Sans Mono",monospace;font-size:.9em}
.note{border-inline-start:.3rem solid var(--link);background:var(--raised);padding:.5rem 1rem;
 margin-block:.75rem;max-width:48rem}
.note.good{border-color:var(--good)}
.note.warning{border-color:var(--bad)}
.note.good strong{color:var(--good)}
.note.warning strong{color:var(--bad)}
ins,del{unicode-bidi:isolate;text-decoration-thickness:2px;text-underline-offset:.2em}
ins{color:var(--good);text-decoration-line:underline}
del{color:var(--bad);text-decoration-line:line-through}
audio{max-width:100%;width:18rem;height:2.25rem;vertical-align:middle}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
@media (max-width:30rem){h1{font-size:1.35rem}}
@media print{body{font-size:10pt}nav,audio{display:none}h2,figure,tr{break-inside:avoid}h2{break-after:avoid}
 .wide{overflow:visible}a{color:inherit}}
"""

STYLE = (
    f":root{{color-scheme:light dark;{_variables(0)}}}"
    f"@media screen and (prefers-color-scheme:dark){{:root{{{_variables(1)}}}}}"
    f"{_RULES.strip()}"
)
