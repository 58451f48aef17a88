#!/usr/bin/env bash
# The pictures of terminals, from a real run: docs/images/demo.svg is what `jin-txn demo` prints.
#
# usage: docs/images/make.sh [JIN_TXN]      (default: the one that cargo has built, else the one in PATH)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

main() {
    local binary=${1:-../../target/debug/jin-txn}
    [[ -x $binary ]] || binary=$(command -v jin-txn)
    # After the proof come the same five refs once more, which the last line says as well.
    { echo '$ jin-txn demo'; "$binary" --color never demo 2>&1 | sed '/^and now:$/,/^All five/{/^All five/!d}'; } |
        fold -s -w 98 | picture 'jin-txn demo' >demo.svg
}

# picture TITLE: lines on stdin as an SVG on stdout.
picture() {
    awk -v title="$1" '
        function escaped(text) {
            gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text)
            return text
        }
        function colour(text) {
            if (text ~ /^\$ /) return "#ffffff"
            if (text ~ /  NEW$|left behind:|is killed/) return "#ff8f80"
            if (text ~ /^jin-txn:/) { recovered = 1; return "#7fd4ff" }
            if (text ~ /^All five/) return "#8fe388"
            return recovered && text !~ /^$/ && text !~ /^jin-txn recover/ ? "#7fd4ff" : "#c8ccd4"
        }
        { sub(/ +$/, ""); line[NR] = $0 }
        END {
            step = 18; top = 44
            height = top + NR * step + 8
            printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"820\" height=\"%d\" viewBox=\"0 0 820 %d\" role=\"img\" aria-label=\"%s\">\n", height, height, escaped(title)
            printf "<rect width=\"820\" height=\"%d\" rx=\"8\" fill=\"#20242c\"/>\n", height
            for (i = 0; i < 3; i++) printf "<circle cx=\"%d\" cy=\"16\" r=\"5\" fill=\"#4a505c\"/>\n", 20 + 18 * i
            printf "<g font-family=\"ui-monospace,Menlo,Consolas,monospace\" font-size=\"13\" xml:space=\"preserve\">\n"
            for (i = 1; i <= NR; i++) if (line[i] != "")
                printf "<text x=\"16\" y=\"%d\" fill=\"%s\" textLength=\"%.0f\">%s</text>\n", top + (i - 1) * step, colour(line[i]), length(line[i]) * 7.9, escaped(line[i])
            print "</g>\n</svg>"
        }'
}

main "$@"
