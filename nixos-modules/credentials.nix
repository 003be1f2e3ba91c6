# Files with secrets: root's own, handed to the service by systemd, and never in the Nix store.
# `unit`: the service; `files`: by the name of the credential, null where there is none.
{
  lib,
  unit,
  files,
}:
let
  given = lib.filterAttrs (_: file: file != null) files;
in
{
  load = lib.mapAttrsToList (name: file: "${name}:${toString file}") given;

  # A setting that names the credential, or nothing.
  setting =
    key: name:
    lib.optionalAttrs (given ? ${name}) { ${key} = "/run/credentials/${unit}.service/${name}"; };
}
