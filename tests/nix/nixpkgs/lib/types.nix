# Option types: each checks single values and merges those of several definitions.
{ evalModules }:
let
  properties = import ./properties.nix;
  inherit (properties)
    holding
    plain
    strongest
    unwrapped
    within
    ;
  inherit (builtins)
    all
    attrNames
    concatMap
    elem
    foldl'
    head
    isAttrs
    isBool
    isFloat
    isInt
    isList
    isString
    length
    listToAttrs
    ;

  shown = builtins.concatStringsSep ".";
  valuesOf = map (one: one.value);
  distinct = foldl' (seen: one: if elem one seen then seen else seen ++ [ one ]) [ ];

  mkType = name: check: merge: {
    _type = "option-type";
    inherit name check merge;
    description = name;
  };

  # Several definitions of one value must agree.
  agreed =
    place: definitions:
    let
      values = distinct (valuesOf definitions);
    in
    if length values == 1 then
      head values
    else
      throw "The option `${shown place}' has conflicting definition values.";

  mergeAs =
    type: place: definitions:
    let
      counting = strongest (holding (concatMap unwrapped definitions));
      wrong = builtins.filter (one: !type.check one.value) counting;
    in
    if wrong == [ ] then
      type.merge place counting
    else
      throw "A definition for option `${shown place}' is not of type `${type.description}'.";

  scalar = name: check: mkType name check agreed;
  between =
    low: high:
    scalar "integer between ${toString low} and ${toString high}" (
      value: isInt value && value >= low && value <= high
    );
  isPackage = value: isAttrs value && value ? outPath;
in
rec {
  inherit mergeAs;

  str = scalar "string" isString;
  bool = scalar "boolean" isBool;
  int = scalar "signed integer" isInt;
  float = scalar "floating point number" isFloat;
  number = scalar "number" (value: isInt value || isFloat value);
  port = between 0 65535;
  ints = {
    inherit between;
    positive = scalar "positive integer" (value: isInt value && value > 0);
    unsigned = scalar "unsigned integer" (value: isInt value && value >= 0);
  };
  numbers.positive = scalar "positive number" (value: (isInt value || isFloat value) && value > 0);
  attrs = mkType "attribute set" isAttrs (
    _: definitions: foldl' (all: one: all // one.value) { } definitions
  );
  package = scalar "package" isPackage;
  path = scalar "absolute path" (
    value:
    builtins.isPath value || isPackage value || (isString value && builtins.substring 0 1 value == "/")
  );
  externalPath = scalar "absolute path not in the Nix store" (
    value: path.check value && builtins.substring 0 11 (toString value) != "/nix/store/"
  );
  enum = words: scalar "one of ${builtins.toJSON words}" (value: elem value words);
  strMatching =
    pattern:
    scalar "string matching ${pattern}" (value: isString value && builtins.match pattern value != null);
  unspecified = scalar "unspecified value" (_: true);

  anything = mkType "anything" (_: true) (
    place: definitions:
    if all (one: isAttrs one.value && !isPackage one.value) definitions then
      (attrsOf anything).merge place definitions
    else
      agreed place definitions
  );

  listOf =
    type:
    mkType "list of ${type.description}" isList (
      place: definitions:
      map (value: mergeAs type place [ (plain value) ]) (concatMap (one: one.value) definitions)
    );

  attrsOf =
    type:
    mkType "attribute set of ${type.description}" isAttrs (
      place: definitions:
      let
        names = distinct (concatMap (one: attrNames one.value) definitions);
        defined = builtins.filter (name: holding (within name definitions) != [ ]) names;
      in
      listToAttrs (
        map (name: {
          inherit name;
          value = mergeAs type (place ++ [ name ]) (within name definitions);
        }) defined
      )
    );

  nullOr =
    type:
    mkType "null or ${type.description}" (value: value == null || type.check value) (
      place: definitions:
      if all (one: one.value == null) definitions then null else type.merge place definitions
    );

  either =
    one: other:
    mkType "${one.description} or ${other.description}" (value: one.check value || other.check value) (
      place: definitions:
      if all (this: one.check this.value) definitions then
        one.merge place definitions
      else
        other.merge place definitions
    );

  oneOf = types: foldl' either (head types) (builtins.tail types);

  submodule =
    module:
    mkType "submodule" (value: isAttrs value || builtins.isFunction value) (
      place: definitions:
      (evalModules {
        # A plain set is all configuration, whatever its attributes are called.
        modules = [
          module
        ]
        ++ map (value: if isAttrs value then { config = value; } else value) (valuesOf definitions);
        specialArgs.name = builtins.elemAt place (length place - 1);
        prefix = place;
      }).config
    )
    // {
      getSubOptions =
        place:
        (evalModules {
          modules = [ module ];
          specialArgs.name = "<name>";
          prefix = place;
        }).options;
    };
}
