# shellcheck shell=sh
# The fail-open switch, as each build step sees it.  Source it before anything is installed, in each shell of a job:
#
#     . /etc/pypiproxy/pypiproxy.sh
#     [ -z "${PYPIPROXY_REFUSED-}" ] || exit 1     # optional: end here instead of asking a proxy that is out
#
# While the switch is off, nothing happens.  While it is on, a step that needs public projects alone is pointed at the public
# index that its client knows by itself; every other step is refused that and keeps its index.  docs/fail-open.md describes how
# a farm uses it.  POSIX sh; works under "set -eu".  The status is 0 in any case: dash ends a script under "set -e" otherwise.
#
# Set for the whole farm:
#     PYPIPROXY_PUBLIC_INDEX   the URL of the index of the proxy that mirrors the public index and holds nothing private
#     PYPIPROXY_DIRECT         the switch: "on" or "off"
#     PYPIPROXY_SWITCH         a file that is a switch too, with "on" or "off" in it (default: /etc/pypiproxy/direct)
#     PYPIPROXY_CA_FILE        the authority of the proxy, if clients trust it by PIP_CERT, SSL_CERT_FILE and the like
# Declared by each job that needs public projects alone:
#     PYPIPROXY_PROJECTS       "public"

# Print why the step is refused.  Values are not printed: they may hold credentials.
pypiproxy_refuse() {
    pypiproxy_refused=1
    printf 'pypiproxy: the switch is on, and this step is refused it: %s\n' "$1" >&2
}

# The value of the variable with this name, without the user information and the slash at the end of a URL.
pypiproxy_url_in() {
    eval "pypiproxy_url=\${$1-}"
    case $pypiproxy_url in
        *://*@*) pypiproxy_url="${pypiproxy_url%%://*}://${pypiproxy_url#*@}" ;;
    esac
    pypiproxy_url=${pypiproxy_url%/}
}

# Whether the switch is on.  What is neither on nor off counts as off.
pypiproxy_is_on() {
    pypiproxy_file=${PYPIPROXY_SWITCH:-/etc/pypiproxy/direct}
    pypiproxy_word=
    if [ -r "$pypiproxy_file" ]; then
        read -r pypiproxy_word <"$pypiproxy_file" || :
    fi
    for pypiproxy_each in "${PYPIPROXY_DIRECT-}" "$pypiproxy_word"; do
        case $pypiproxy_each in
            on) return 0 ;;
            '' | off) ;;
            *) printf 'pypiproxy: a switch is neither on nor off: it counts as off\n' >&2 ;;
        esac
    done
    return 1
}

# What is in the configuration file $1 of a client: "other" if it names an index or a source that is not the public one, "public"
# if it names that, else nothing.
pypiproxy_names() {
    awk -v public="$pypiproxy_public" '
        function known(url) {
            sub(/:\/\/[^\/]*@/, "://", url)
            sub(/\/+$/, "", url)
            return url == public
        }
        /^[ \t]*[#;]/ || /^[ \t]*(http-)?proxy[ \t]*[=:]/ { next }
        /(extra[-_]index[-_]url|find[-_]links)/ { other = 1 }
        {
            line = $0
            while (match(line, /[a-z+]+:\/\/[^ \t"'"'"',\]]+/)) {
                if (known(substr(line, RSTART, RLENGTH))) found = 1
                else other = 1
                line = substr(line, RSTART + RLENGTH)
            }
        }
        END { if (other) print "other"; else if (found) print "public" }
    ' "$1"
}

# Whether the file $1 of a project names the proxy, or sources besides the index.
pypiproxy_is_tied() {
    [ -r "$1" ] || return 1
    awk -v proxy="$pypiproxy_host" '
        /^[ \t]*#/ { next }
        index($0, proxy) { tied = 1 }
        /^[ \t]*(-i|-f|--index-url|--pypi-url|--extra-index-url|--find-links)/ { tied = 1 }
        /^[ \t]*\[\[.*(index|tool.*source)/ { tied = 1 }
        /^([^#=]*\.)?[ \t"]*(extra[-_]index[-_]url|index[-_]url|find[-_]links|index)[ \t"]*=/ { tied = 1 }
        /^[ \t]*\[\[[ \t]*source/ && ++sources > 1 { tied = 1 }
        END { exit !tied }
    ' "$1"
}

pypiproxy_check_variables() {
    for pypiproxy_name in PIP_INDEX_URL UV_DEFAULT_INDEX UV_INDEX_URL PDM_PYPI_URL PIPENV_PYPI_MIRROR; do
        pypiproxy_url_in "$pypiproxy_name"
        if [ -n "$pypiproxy_url" ] && [ "$pypiproxy_url" != "$pypiproxy_public" ]; then
            pypiproxy_refuse "$pypiproxy_name names another index than PYPIPROXY_PUBLIC_INDEX"
        fi
    done
    for pypiproxy_name in PIP_EXTRA_INDEX_URL PIP_FIND_LINKS UV_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS; do
        pypiproxy_url_in "$pypiproxy_name"
        if [ -n "$pypiproxy_url" ]; then
            pypiproxy_refuse "$pypiproxy_name names further sources"
        fi
    done
    if env | grep -Eq '^(UV_INDEX_.+_(USERNAME|PASSWORD)|POETRY_(REPOSITORIES|HTTP_BASIC)_.+)='; then
        pypiproxy_refuse 'there are logins for further indexes (UV_INDEX_…, POETRY_…)'
    fi
}

# Refuse the step if the configuration file $2 of the client $1 names anything but the public index.
pypiproxy_check_config() {
    [ -r "$2" ] || return 0
    # With these settings the client reads no configuration file.
    case $1:${PIP_CONFIG_FILE-}:${UV_NO_CONFIG-} in
        pip:/dev/null:* | uv:*:1 | uv:*:true) return 0 ;;
    esac
    case $(pypiproxy_names "$2") in
        other) pypiproxy_refuse "$2 names an index or a source besides PYPIPROXY_PUBLIC_INDEX" ;;
        public) pypiproxy_override="$pypiproxy_override $1" ;;
    esac
}

# Refuse the step if one of these files of a project names the proxy, or sources besides the index.
pypiproxy_check_project() {
    for pypiproxy_each in "$@"; do
        if pypiproxy_is_tied "$pypiproxy_each"; then
            pypiproxy_refuse "$pypiproxy_each names the proxy, or sources besides the index"
        fi
    done
}

# Sets pypiproxy_override to the clients whose configuration files must not be read.
pypiproxy_check_files() {
    pypiproxy_override=
    pypiproxy_home=${HOME:-/root}
    pypiproxy_config=${XDG_CONFIG_HOME:-$pypiproxy_home/.config}
    pypiproxy_separators=$IFS
    IFS=:
    for pypiproxy_each in ${XDG_CONFIG_DIRS:-/etc/xdg}; do
        pypiproxy_check_config pip "$pypiproxy_each/pip/pip.conf"
        pypiproxy_check_config uv "$pypiproxy_each/uv/uv.toml"
    done
    IFS=$pypiproxy_separators
    pypiproxy_check_config pip /etc/pip.conf
    pypiproxy_check_config pip "$pypiproxy_home/.pip/pip.conf"
    pypiproxy_check_config pip "$pypiproxy_config/pip/pip.conf"
    pypiproxy_check_config pip "${VIRTUAL_ENV:-/nonexistent}/pip.conf"
    pypiproxy_check_config pip "${PIP_CONFIG_FILE:-/nonexistent}"
    pypiproxy_check_config uv /etc/uv/uv.toml
    pypiproxy_check_config uv "$pypiproxy_config/uv/uv.toml"
    pypiproxy_check_config uv "${UV_CONFIG_FILE:-/nonexistent}"
    # Clients look for the files of a project in the directories above, too.
    pypiproxy_folder=$PWD
    while :; do
        pypiproxy_check_config uv "$pypiproxy_folder/uv.toml"
        pypiproxy_check_project "$pypiproxy_folder/pyproject.toml" "$pypiproxy_folder/Pipfile" "$pypiproxy_folder/pdm.toml"
        [ -n "$pypiproxy_folder" ] || break
        pypiproxy_folder=${pypiproxy_folder%/*}
    done
    pypiproxy_check_project ./*requirements*.txt ./*constraints*.txt ./requirements/*.txt ./pylock*.toml ./uv.lock \
        ./poetry.lock ./pdm.lock ./Pipfile.lock ./setup.cfg ./buildout.cfg
    # shellcheck disable=SC2086  # they are lists of files
    pypiproxy_check_project ${PIP_REQUIREMENT-} ${PIP_CONSTRAINT-} ${UV_CONSTRAINT-} ${UV_OVERRIDE-} ${UV_BUILD_CONSTRAINT-}
}

# Let clients use the index that they know by themselves.
pypiproxy_go_direct() {
    unset PIP_INDEX_URL UV_DEFAULT_INDEX UV_INDEX_URL PDM_PYPI_URL PDM_PYPI_VERIFY_SSL PIPENV_PYPI_MIRROR
    case ${PIP_TRUSTED_HOST-} in
        "$pypiproxy_host" | "${pypiproxy_host%:*}") unset PIP_TRUSTED_HOST ;;
    esac
    if [ -n "${PYPIPROXY_CA_FILE-}" ]; then
        for pypiproxy_name in PIP_CERT SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE; do
            eval "pypiproxy_url=\${$pypiproxy_name-}"
            if [ "$pypiproxy_url" = "$PYPIPROXY_CA_FILE" ]; then
                unset "$pypiproxy_name"
            fi
        done
    fi
    case $pypiproxy_override in
        *pip*) export PIP_CONFIG_FILE=/dev/null ;;
    esac
    case $pypiproxy_override in
        *uv*)
            unset UV_CONFIG_FILE
            export UV_NO_CONFIG=1
            ;;
    esac
    export PYPIPROXY_WENT_DIRECT=1
    printf 'pypiproxy: the switch is on: this step asks the public index directly, not the proxy\n' >&2
}

pypiproxy_switch() {
    if ! pypiproxy_is_on || [ -n "${PYPIPROXY_WENT_DIRECT-}" ]; then
        return 0
    fi
    pypiproxy_refused=
    pypiproxy_url_in PYPIPROXY_PUBLIC_INDEX
    pypiproxy_public=$pypiproxy_url
    case $pypiproxy_public in
        http://?* | https://?*) ;;
        *)
            pypiproxy_refuse 'PYPIPROXY_PUBLIC_INDEX is not the URL of an index'
            return 1
            ;;
    esac
    pypiproxy_host=${pypiproxy_public#*://}
    pypiproxy_host=${pypiproxy_host%%/*}
    if [ "${PYPIPROXY_PROJECTS-}" != public ]; then
        pypiproxy_refuse 'the job does not declare PYPIPROXY_PROJECTS=public, so it may need private projects'
    fi
    pypiproxy_check_variables
    pypiproxy_check_files
    if [ -n "$pypiproxy_refused" ]; then
        printf 'pypiproxy: it keeps its index; what to do instead is in docs/fail-open.md\n' >&2
        return 1
    fi
    pypiproxy_go_direct
}

# Values may hold credentials: they are not traced under "set -x".
case $- in
    *x*)
        { set +x; } 2>/dev/null
        pypiproxy_traced=1
        ;;
    *) pypiproxy_traced= ;;
esac
unset PYPIPROXY_REFUSED
if ! pypiproxy_switch; then
    export PYPIPROXY_REFUSED=1
fi
if [ -n "$pypiproxy_traced" ]; then
    set -x
fi
