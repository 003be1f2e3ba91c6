# Modules: options declared in some, defined in others, and one configuration out of all.
let
  properties = import ./properties.nix;
  inherit (properties)
    holding
    plain
    unwrapped
    within
    ;
  types = import ./types.nix { inherit evalModules; };
  inherit (builtins)
    attrNames
    concatMap
    filter
    foldl'
    hasAttr
    isFunction
    mapAttrs
    ;

  shown = builtins.concatStringsSep ".";
  isOption = value: (value._type or "") == "option";
  metadata = [
    "_class"
    "_file"
    "freeformType"
    "imports"
    "key"
    "meta"
  ];

  evalModules =
    {
      modules,
      specialArgs ? { },
      prefix ? [ ],
    }:
    let
      arguments = {
        inherit config options;
        lib = import ./.;
      }
      // specialArgs;

      # One module as `{ key; imports; options; config; freeformType; }`.
      read =
        module:
        let
          isFile = builtins.isPath module || builtins.isString module;
          content = if isFile then import module else module;
          called =
            if isFunction content then
              content (
                arguments
                // mapAttrs (name: _: arguments.${name} or (throw "there is no module argument `${name}'")) (
                  builtins.functionArgs content
                )
              )
            else
              content;
          isSorted = called ? options || called ? config;
        in
        {
          key = called.key or (if isFile then toString module else null);
          imports = called.imports or [ ];
          options = called.options or { };
          config = if isSorted then called.config or { } else removeAttrs called metadata;
          freeformType = called.freeformType or null;
        };

      # Every module once, imports first.
      collect =
        seen: module:
        let
          this = read module;
        in
        if this.key != null && builtins.elem this.key seen.keys then
          seen
        else
          let
            below = foldl' collect {
              keys = seen.keys ++ (if this.key == null then [ ] else [ this.key ]);
              modules = seen.modules;
            } this.imports;
          in
          below // { modules = below.modules ++ [ this ]; };
      all =
        (foldl' collect {
          keys = [ ];
          modules = [ ];
        } modules).modules;

      freeform = foldl' (
        found: one: if one.freeformType != null then one.freeformType else found
      ) null all;
      options = foldl' joinOptions { } (map (one: one.options) all);
      joinOptions =
        left: right:
        left
        // mapAttrs (
          name: value:
          if !(left ? ${name}) then
            value
          else if isOption value || isOption left.${name} then
            throw "The option `${name}' is declared twice."
          else
            joinOptions left.${name} value
        ) right;

      definitions = concatMap (one: unwrapped (plain one.config)) all;

      valueOf =
        place: option: given:
        let
          defined = holding given;
          # Looked at only when nothing else is said: a default may well be an error.
          known = if defined == [ ] && option ? default then [ (plain option.default) ] else defined;
          value =
            if known == [ ] then
              throw "The option `${shown place}' was accessed but has no value defined."
            else
              types.mergeAs (option.type or types.unspecified) place known;
        in
        (option.apply or (same: same)) value;

      valuesOf =
        place: declared: given:
        mapAttrs (
          name: option:
          (if isOption option then valueOf else valuesOf) (place ++ [ name ]) option (within name given)
        ) declared;

      # Where something is defined that nobody declared.
      strays =
        place: declared: given:
        concatMap (
          one:
          concatMap (
            name:
            let
              here = place ++ [ name ];
            in
            if !(declared ? ${name}) then
              (if holding (within name [ one ]) == [ ] then [ ] else [ here ])
            else if isOption declared.${name} then
              [ ]
            else
              strays here declared.${name} (within name [ one ])
          ) (attrNames one.value)
        ) given;

      declared = valuesOf prefix options definitions;
      undeclared = map (
        one:
        one
        // {
          value = removeAttrs one.value (filter (name: hasAttr name options) (attrNames one.value));
        }
      ) (holding definitions);
      lost = strays prefix options definitions;
      config =
        if freeform != null then
          freeform.merge prefix undeclared // declared
        else if lost == [ ] then
          declared
        else
          throw "The option `${shown (builtins.head lost)}' does not exist.";
    in
    {
      inherit config options;
    };
in
{
  inherit evalModules types isOption;
}
