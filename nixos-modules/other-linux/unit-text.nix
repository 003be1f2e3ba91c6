# A service of the modules as the text of a unit file.
{ lib }:
service:
let
  shown = value: if builtins.isBool value then lib.boolToString value else toString value;
  setting =
    name: value:
    let
      values = if builtins.isList value then value else [ value ];
    in
    lib.concatMapStrings (one: "${name}=${shown one}\n") (lib.filter (one: one != null) values);
  settings = set: lib.concatStrings (lib.mapAttrsToList setting set);
  words = name: list: lib.optionalString (list != [ ]) "${name}=${lib.concatStringsSep " " list}\n";
  variables = lib.filterAttrs (_: value: value != null) service.environment;
in
''
  [Unit]
  Description=${service.description}
  ${words "Wants" service.wants}${words "After" service.after}
  [Service]
  ${
    lib.concatStrings (lib.mapAttrsToList (name: value: "Environment=\"${name}=${value}\"\n") variables)
  }${settings service.serviceConfig}
  [Install]
  ${words "WantedBy" service.wantedBy}''
