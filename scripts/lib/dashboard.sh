# shellcheck shell=bash
# Builds and checks the dashboard for the scripts that source this file; $scripts is their folder.

# A development build of the program reads web/dist for each request; a release embeds it. Packages are installed again only
# if their lock file has changed.
install_dashboard_packages() {
  if [ ! node_modules/.package-lock.json -nt package-lock.json ]; then
    npm ci --silent --no-audit --no-fund
    touch node_modules/.package-lock.json
  fi
}

build_dashboard() (
  # shellcheck disable=SC2154 # set by the script
  cd "$scripts/../web"
  install_dashboard_packages
  npm run --silent build >/dev/null
)

check_dashboard() (
  cd "$scripts/../web"
  install_dashboard_packages
  npm run --silent check
)
