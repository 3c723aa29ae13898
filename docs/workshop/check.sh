#!/bin/sh
# Whether an exercise of the workshop is solved: sh check.sh NUMBER [URL of the proxy], in the directory of the workshop.
# Prints "done"; or what is missing, and ends with status 1.

number=${1-}
url=${2-http://127.0.0.1:3143}

missing() {
    echo "not yet: $*"
    exit 1
}

# The status of what is at a path of the proxy, for whom nobody knows.
status() {
    curl --silent --output /dev/null --write-out '%{http_code}' "$url$1"
}

[ "$(status /-/ready)" = 200 ] || missing "no proxy is ready at $url: start it, or name its URL (sh check.sh NUMBER URL)"

case $number in
1)
    pypiproxy ls requests 2> /dev/null | grep -q ' stored' || missing "no file of requests is stored: install it through $url/simple/"
    curl --silent --head "$url/simple/requests/" | grep -qi '^cache-status:.*; *hit' ||
        missing "the page of requests is not served from the cache"
    ls installed-1/requests-*.dist-info > /dev/null 2>&1 || missing "requests is not installed in installed-1"
    ;;
2)
    grep -q '^python-dateutil' requirements.txt || missing "requirements.txt does not name python-dateutil"
    pypiproxy warm -r requirements.txt --dry-run --proxy "$url" | grep -q ' 0 would be asked for, 0 failed' ||
        missing "something that requirements.txt needs is not cached: warm it"
    pypiproxy pins | grep -q ' six .*future' || missing "six is not pinned with its future files"
    ;;
3)
    ls installed-3/python_dateutil-*.dist-info > /dev/null 2>&1 || missing "python-dateutil is not installed in installed-3"
    [ "$(status /simple/attrs/)" = 503 ] || missing "the page of attrs is not answered with 503: is the line still there?"
    pypiproxy upstreams | grep -q ' down' || missing "no upstream is down"
    [ -s upstreams.txt ] && grep -q 'connection refused' upstreams.txt || missing "upstreams.txt does not have the reason"
    ;;
4)
    [ "$(status /index/all/simple/acme-tool/)" = 401 ] || missing "who does not log in is not answered 401 for acme-tool in all"
    [ "$(status /index/all/simple/requests/)" = 200 ] || missing "not everybody may install requests from all"
    pypiproxy claims list | grep -q '^internal  *acme-tool  *claimed' || missing "internal has no file of acme-tool"
    pypiproxy token list | grep -q ' uploader ' || missing "there is no token with the role uploader"
    ;;
5)
    (. ./agent.env && [ "$PIP_INDEX_URL" = "$url/simple/" ]) || missing "agent.env does not set PIP_INDEX_URL to $url/simple/"
    (. ./agent.env && pypiproxy doctor --agent "$url" --project requests --strict --quiet) ||
        missing "doctor still finds something"
    ;;
6)
    pypiproxy pins --data-dir restored 2> /dev/null | grep -q ' six ' || missing "restored is no data directory that has the pin of six"
    pypiproxy claims list --config pypiproxy.toml --data-dir restored | grep -q ' acme-tool ' ||
        missing "restored does not know that acme-tool is yours"
    grep -q '^alice:' restored/users 2> /dev/null || missing "restored does not have the user alice: which file does no backup have?"
    ls restored/hosted/internal/acme-tool/*.whl > /dev/null 2>&1 || missing "restored does not have the wheel of acme-tool"
    ;;
*)
    echo "usage: sh check.sh NUMBER [URL]; the exercises are 1 to 6"
    exit 2
    ;;
esac
echo "done"
