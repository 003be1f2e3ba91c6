# A small stand-in for nixpkgs' lib: as much of it as this project's Nix files use, so that they can
# be evaluated where there is Nix and no nixpkgs. The real one is the reference: `nix-check
# --nixpkgs DIR` asks it the same questions.
let
  inherit (builtins)
    attrNames
    concatMap
    concatStringsSep
    isList
    listToAttrs
    map
    mapAttrs
    ;
  modules = import ./modules.nix;
  properties = import ./properties.nix;
in
rec {
  inherit (modules) evalModules types isOption;
  inherit (properties)
    mkDefault
    mkForce
    mkIf
    mkMerge
    mkOverride
    ;
  inherit (builtins)
    all
    any
    attrNames
    attrValues
    concatMap
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    head
    isBool
    isList
    length
    listToAttrs
    map
    mapAttrs
    readDir
    readFile
    removeAttrs
    replaceStrings
    toJSON
    ;

  mkOption = fields: { _type = "option"; } // fields;
  mkEnableOption =
    what:
    mkOption {
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  mkPackageOption =
    pkgs: name:
    {
      default ? name,
      extraDescription ? "",
      ...
    }:
    mkOption {
      type = types.package;
      default = pkgs.${default};
      description = "The ${name} package to use. ${extraDescription}";
    };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };

  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: make: listToAttrs (map (name: nameValuePair name (make name)) names);
  mapAttrsToList = change: set: map (name: change name set.${name}) (attrNames set);
  mapAttrs' = change: set: listToAttrs (mapAttrsToList change set);
  concatMapAttrs =
    change: set: builtins.foldl' (all: one: all // one) { } (mapAttrsToList change set);
  filterAttrs =
    keep: set: removeAttrs set (builtins.filter (name: !keep name set.${name}) (attrNames set));
  getAttrs = names: set: genAttrs names (name: set.${name});
  optionalAttrs = condition: set: if condition then set else { };

  optional = condition: value: if condition then [ value ] else [ ];
  optionalString = condition: text: if condition then text else "";
  flatten = value: if isList value then concatMap flatten value else [ value ];

  concatStrings = concatStringsSep "";
  concatMapStrings = change: values: concatStrings (map change values);
  concatMapStringsSep =
    separator: change: values:
    concatStringsSep separator (map change values);
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  hasInfix = infix: text: builtins.replaceStrings [ infix ] [ "" ] text != text;
  removePrefix =
    prefix: text:
    if hasPrefix prefix text then builtins.substring (builtins.stringLength prefix) (-1) text else text;
  hasSuffix =
    suffix: text:
    let
      rest = builtins.stringLength text - builtins.stringLength suffix;
    in
    rest >= 0 && builtins.substring rest (-1) text == suffix;
  removeSuffix =
    suffix: text:
    if hasSuffix suffix text then
      builtins.substring 0 (builtins.stringLength text - builtins.stringLength suffix) text
    else
      text;
  boolToString = value: if value then "true" else "false";
  importTOML = file: builtins.fromTOML (builtins.readFile file);
  getExe' = package: program: "${package}/bin/${program}";
  getExe = package: getExe' package package.meta.mainProgram;
  makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
  makeLibraryPath = concatMapStringsSep ":" (package: "${package}/lib");

  filesystem.listFilesRecursive =
    folder:
    concatMap (
      name:
      let
        here = folder + "/${name}";
      in
      if (builtins.readDir folder).${name} == "directory" then
        filesystem.listFilesRecursive here
      else
        [ here ]
    ) (attrNames (builtins.readDir folder));

  # Sources are only named here, never copied.
  fileset = {
    toSource = { root, ... }: root;
    unions = files: files;
  };
  licenses = genAttrs [ "gpl3Plus" ] (name: name);
  platforms = genAttrs [ "linux" "darwin" "unix" ] (name: [ name ]);
}
