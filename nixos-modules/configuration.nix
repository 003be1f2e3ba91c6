# TOML files as one directory, read once by the program itself while the system is built: what would
# stop the start of the daemon stops the build.
{
  lib,
  pkgs,
  package,
  program,
  files,
}:
let
  toml = pkgs.formats.toml { };
  copies = lib.concatStrings (
    lib.mapAttrsToList (name: content: "cp ${toml.generate name content} $out/${name}\n") files
  );
  # 2 is a configuration that cannot be used; 1 is about files of the machine it will run on.
  read = ''
    status=0
    ${package}/bin/${program} config check -c $out/${program}.toml || status=$?
    [ $status -lt 2 ]
  '';
  canRun = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
in
pkgs.runCommand "${program}-configuration" { } ''
  mkdir $out
  ${copies}${lib.optionalString canRun read}''
