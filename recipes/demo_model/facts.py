"""The raw material of the dialogues: countries and capitals, cities, names, and plain words. Data only."""

CAPITALS = {
    line.split(":")[0]: line.split(":")[1]
    for line in """
Afghanistan:Kabul
Albania:Tirana
Algeria:Algiers
Andorra:Andorra la Vella
Angola:Luanda
Antigua and Barbuda:Saint John's
Argentina:Buenos Aires
Armenia:Yerevan
Australia:Canberra
Austria:Vienna
Azerbaijan:Baku
the Bahamas:Nassau
Bahrain:Manama
Bangladesh:Dhaka
Barbados:Bridgetown
Belarus:Minsk
Belgium:Brussels
Belize:Belmopan
Benin:Porto-Novo
Bhutan:Thimphu
Bolivia:Sucre
Bosnia and Herzegovina:Sarajevo
Botswana:Gaborone
Brazil:Brasilia
Brunei:Bandar Seri Begawan
Bulgaria:Sofia
Burkina Faso:Ouagadougou
Burundi:Gitega
Cambodia:Phnom Penh
Cameroon:Yaounde
Canada:Ottawa
Cape Verde:Praia
the Central African Republic:Bangui
Chad:N'Djamena
Chile:Santiago
China:Beijing
Colombia:Bogota
Comoros:Moroni
Costa Rica:San Jose
Croatia:Zagreb
Cuba:Havana
Cyprus:Nicosia
the Czech Republic:Prague
Czechia:Prague
Denmark:Copenhagen
Djibouti:Djibouti
Dominica:Roseau
the Dominican Republic:Santo Domingo
the Democratic Republic of the Congo:Kinshasa
East Timor:Dili
Ecuador:Quito
Egypt:Cairo
El Salvador:San Salvador
England:London
Equatorial Guinea:Malabo
Eritrea:Asmara
Estonia:Tallinn
Eswatini:Mbabane
Ethiopia:Addis Ababa
Fiji:Suva
Finland:Helsinki
France:Paris
Gabon:Libreville
the Gambia:Banjul
Georgia:Tbilisi
Germany:Berlin
Ghana:Accra
Greece:Athens
Grenada:Saint George's
Guatemala:Guatemala City
Guinea:Conakry
Guinea-Bissau:Bissau
Guyana:Georgetown
Haiti:Port-au-Prince
Honduras:Tegucigalpa
Hungary:Budapest
Iceland:Reykjavik
India:New Delhi
Indonesia:Jakarta
Iran:Tehran
Iraq:Baghdad
Ireland:Dublin
Israel:Jerusalem
Italy:Rome
Ivory Coast:Yamoussoukro
Jamaica:Kingston
Japan:Tokyo
Jordan:Amman
Kazakhstan:Astana
Kenya:Nairobi
Kiribati:Tarawa
Kosovo:Pristina
Kuwait:Kuwait City
Kyrgyzstan:Bishkek
Laos:Vientiane
Latvia:Riga
Lebanon:Beirut
Lesotho:Maseru
Liberia:Monrovia
Libya:Tripoli
Liechtenstein:Vaduz
Lithuania:Vilnius
Luxembourg:Luxembourg
Madagascar:Antananarivo
Malawi:Lilongwe
Malaysia:Kuala Lumpur
the Maldives:Male
Mali:Bamako
Malta:Valletta
the Marshall Islands:Majuro
Mauritania:Nouakchott
Mauritius:Port Louis
Mexico:Mexico City
Micronesia:Palikir
Moldova:Chisinau
Monaco:Monaco
Mongolia:Ulaanbaatar
Montenegro:Podgorica
Morocco:Rabat
Mozambique:Maputo
Myanmar:Naypyidaw
Namibia:Windhoek
Nauru:Yaren
Nepal:Kathmandu
the Netherlands:Amsterdam
New Zealand:Wellington
Nicaragua:Managua
Niger:Niamey
Nigeria:Abuja
North Korea:Pyongyang
North Macedonia:Skopje
Norway:Oslo
Oman:Muscat
Pakistan:Islamabad
Palau:Ngerulmud
Panama:Panama City
Papua New Guinea:Port Moresby
Paraguay:Asuncion
Peru:Lima
the Philippines:Manila
Poland:Warsaw
Portugal:Lisbon
Qatar:Doha
the Republic of the Congo:Brazzaville
Romania:Bucharest
Russia:Moscow
Rwanda:Kigali
Saint Kitts and Nevis:Basseterre
Saint Lucia:Castries
Saint Vincent and the Grenadines:Kingstown
Samoa:Apia
San Marino:San Marino
Sao Tome and Principe:Sao Tome
Saudi Arabia:Riyadh
Scotland:Edinburgh
Senegal:Dakar
Serbia:Belgrade
Seychelles:Victoria
Sierra Leone:Freetown
Singapore:Singapore
Slovakia:Bratislava
Slovenia:Ljubljana
the Solomon Islands:Honiara
Somalia:Mogadishu
South Africa:Pretoria
South Korea:Seoul
South Sudan:Juba
Spain:Madrid
Sri Lanka:Colombo
Sudan:Khartoum
Suriname:Paramaribo
Sweden:Stockholm
Switzerland:Bern
Syria:Damascus
Taiwan:Taipei
Tajikistan:Dushanbe
Tanzania:Dodoma
Thailand:Bangkok
Togo:Lome
Tonga:Nuku'alofa
Trinidad and Tobago:Port of Spain
Tunisia:Tunis
Turkey:Ankara
Turkmenistan:Ashgabat
Tuvalu:Funafuti
Uganda:Kampala
Ukraine:Kyiv
the United Arab Emirates:Abu Dhabi
the United Kingdom:London
the United States:Washington, D.C.
Uruguay:Montevideo
Uzbekistan:Tashkent
Vanuatu:Port Vila
the Vatican:Vatican City
Venezuela:Caracas
Vietnam:Hanoi
Wales:Cardiff
Yemen:Sana'a
Zambia:Lusaka
Zimbabwe:Harare
""".strip().splitlines()
}
"""Country (with its article where English uses one) -> capital."""

_LESS_KNOWN = """
Andorra; Antigua and Barbuda; Azerbaijan; Bahrain; Barbados; Belize; Benin; Bhutan; Botswana; Brunei; Burkina Faso;
Burundi; Cape Verde; the Central African Republic; Chad; Comoros; Djibouti; Dominica; the Democratic Republic of the
Congo; East Timor; Equatorial Guinea; Eritrea; Eswatini; Gabon; the Gambia; Grenada; Guinea; Guinea-Bissau; Guyana;
Honduras; Ivory Coast; Kiribati; Kosovo; Kyrgyzstan; Lesotho; Liberia; Liechtenstein; Malawi; the Maldives; Mali;
the Marshall Islands; Mauritania; Mauritius; Micronesia; Moldova; Montenegro; Mozambique; Myanmar; Namibia; Nauru;
Niger; North Macedonia; Oman; Palau; Papua New Guinea; the Republic of the Congo; Rwanda; Saint Kitts and Nevis;
Saint Lucia; Saint Vincent and the Grenadines; Samoa; San Marino; Sao Tome and Principe; Seychelles; Sierra Leone;
the Solomon Islands; South Sudan; Suriname; Tajikistan; Togo; Tonga; Trinidad and Tobago; Turkmenistan; Tuvalu;
Vanuatu; Zambia
"""
WELL_KNOWN = [country for country in CAPITALS if country not in _LESS_KNOWN.replace("\n", " ").strip().split("; ")]
"""The countries that people ask about most."""

COUNTRY_ALIASES = {
    "the USA": "the United States", "USA": "the United States", "the US": "the United States",
    "America": "the United States", "the United States of America": "the United States",
    "the UK": "the United Kingdom", "UK": "the United Kingdom", "Great Britain": "the United Kingdom",
    "Britain": "the United Kingdom", "the UAE": "the United Arab Emirates", "Holland": "the Netherlands",
    "Burma": "Myanmar", "Cote d'Ivoire": "Ivory Coast", "Timor-Leste": "East Timor", "Swaziland": "Eswatini",
}  # fmt: skip

CITIES = [
    "New York", "Los Angeles", "Chicago", "Houston", "San Francisco", "Boston", "Seattle", "Miami", "Denver",
    "Dallas", "Austin", "Philadelphia", "Las Vegas", "Atlanta", "Detroit", "Toronto", "Montreal", "Vancouver",
    "Rio de Janeiro", "Barcelona", "Milan", "Venice", "Munich", "Hamburg", "Frankfurt", "Zurich", "Geneva", "Lyon",
    "Nice", "Manchester", "Liverpool", "Oxford", "Cambridge", "Istanbul", "Dubai", "Mumbai", "Shanghai", "Hong Kong",
    "Osaka", "Kyoto", "Sydney", "Melbourne", "Cape Town", "San Diego", "Phoenix",
]  # fmt: skip

NAMES = [
    "Alice", "Bob", "Carol", "Dave", "Frank", "Grace", "Ivan", "Oscar", "Victor", "Walter", "Anna", "Ben", "David",
    "Emma", "Henry", "Jack", "Kate", "Leo", "Maria", "Paul", "Sam", "Tom", "Uma", "Will", "John", "Jane", "Peter",
    "Mary", "James", "Linda", "Michael", "Sarah", "Robert", "Laura", "Daniel", "Julia", "Thomas", "Martin", "Lucas",
    "Max", "Ali", "Wei", "Ken", "Raj", "Carlos", "Pedro", "Ana", "George", "Helen", "Adam", "Amy", "Mark", "Lisa",
    "Luke", "Ella", "Simon", "Tim", "Sue", "Steve", "Karen", "Kevin", "Nancy", "Alex", "Chris", "Jordan", "Taylor",
    "Morgan", "Ada", "Alan", "Dennis", "Donald", "Barbara", "Tony", "Charles", "Albert",
]  # fmt: skip

SURNAMES = [
    "Smith", "Johnson", "Brown", "Wilson", "Taylor", "Thomas", "Jackson", "White", "Martin", "Lee", "Walker", "Hall",
    "Young", "King", "Hill", "Green", "Cook",
]  # fmt: skip

VERBS = [
    "find", "update", "create", "check", "fetch", "list", "remove", "cancel", "open", "close", "start", "stop",
    "lock", "unlock", "book", "order", "rate", "review", "count", "measure", "scan", "print", "share", "archive",
    "restore", "approve", "reject", "assign", "schedule", "track", "ship", "refund", "renew", "verify", "validate",
    "register", "publish", "download", "upload", "compress", "resize", "rename", "move", "copy", "merge", "split",
    "sort", "filter", "search", "inspect", "describe", "load", "save", "send", "show", "reserve", "activate",
    "disable", "enable", "invite", "notify", "report", "submit", "test", "watch",
]  # fmt: skip

NOUNS = [
    "order", "ticket", "invoice", "account", "user", "project", "task", "file", "folder", "image", "video", "song",
    "book", "recipe", "flight", "hotel", "room", "car", "bike", "train", "package", "parcel", "product", "customer",
    "employee", "contract", "payment", "device", "sensor", "server", "robot", "door", "window", "lamp", "garden",
    "plant", "animal", "pet", "movie", "game", "player", "team", "match", "score", "course", "lesson", "student",
    "teacher", "report", "document", "page", "message", "email", "calendar", "event", "meeting", "alarm", "timer",
    "note", "list", "table", "menu", "meal", "coupon", "badge", "license", "profile", "photo", "album", "playlist",
    "channel", "stream", "backup", "job", "queue", "worker", "branch", "commit", "issue", "comment", "label",
    "record", "patient", "doctor", "appointment", "vehicle", "route", "bridge", "tower", "station", "museum",
    "planet", "river",
]  # fmt: skip

ADJECTIVES = [
    "red", "blue", "green", "old", "new", "small", "large", "fast", "slow", "quiet", "bright", "dark", "warm", "cold",
    "simple", "hidden", "modern", "heavy", "light", "long", "short", "deep", "high", "wild", "soft", "hard", "open",
    "empty", "full", "clean", "broken", "early", "late",
]  # fmt: skip

_WORDS = """
about above account action active address after again amount animal answer area around array art author back bad
base beautiful because before begin best better between block blog board body book bottom box break build business
button call card case catch cell center change check child choose city class clean clear click client close code
cold color come comment common company complete contact content continue control cook copy corner cost country
course cover create credit current custom data date day deal default design detail different direct display district
doctor double down draw dream drive early easy edit effect element email empty end energy enter error event every
example exist expect extra face fact family far fast field figure file final find fine first floor follow food force
form found free friend front full fun future game general girl give glass goal gold good great green ground group
grow guide hand happy hard head health heart help here high history hold home hope host hot hour house human idea
image impact important index input inside interest issue item job join joy jump just keep key kind know label land
language large last late laugh lead learn left length lesson letter level life light like limit line link list live
local long look love low luck machine main make man map mark market master match matter may mean media meet member
memory menu message method middle mind minute mode moment money month more most mother move movie much music name
near need network never new news next night north note number object offer office old only open option orange order
other out over own page paper parent part pass past path pay peace people perfect person phone photo pick picture
piece place plan plant play player point pool power present press price print private problem process product
profile project public pull purple push question quick quiet rain range rate read real reason record red region
report request rest result return rich right river road rock role room round rule run safe sale same sample save
scale scene school science score screen sea search season second secret section sell send serve service set shape
share ship shop short show side sign silver simple since single site size skill sky sleep slow small smart snow
social soft some son song soon sound source south space special speed spring square staff stage star start state
station stay step still stone stop store story street strong student study style subject success summer sun support
sure system table take talk task taste tea team test text thank thing think three time title today top total touch
tour town track trade train travel tree trip true trust try turn two type under unit until update use user value
very video view visit voice wait walk wall want warm watch water way weather week well west white wide wild will win
wind window winter wish wonder wood word work world write year yellow yes young
"""
WORDS = _WORDS.split()
"""Plain words that are one token with and without a space before them, so that copying one needs no spelling."""

ABSTRACT = [
    "gravity",
    "love",
    "democracy",
    "inflation",
    "evolution",
    "music",
    "history",
    "physics",
    "chemistry",
    "philosophy",
    "economics",
    "art",
    "football",
    "photosynthesis",
    "quantum mechanics",
    "relativity",
    "electricity",
    "magnetism",
    "poetry",
    "religion",
    "language",
    "cooking",
    "chess",
    "machine learning",
    "blockchain",
    "climate change",
    "the stock market",
    "black holes",
    "dinosaurs",
    "volcanoes",
    "the ocean",
    "sleep",
    "dreams",
    "time travel",
    "the internet",
    "vaccines",
    "the brain",
    "the heart",
    "the moon",
    "the sun",
    "stars",
    "rainbows",
    "earthquakes",
]

COLORS = [
    "red", "blue", "green", "yellow", "orange", "purple", "black", "white", "pink", "brown", "gray", "silver", "gold",
    "violet", "cyan",
]  # fmt: skip

NUMBER_WORDS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS_WORDS = ["_", "_", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def number_in_words(number: int) -> str:
    """0 … 99 in English words, e.g. 42 -> 'forty-two'."""
    if number < 20:
        return NUMBER_WORDS[number]
    tens, ones = divmod(number, 10)
    return TENS_WORDS[tens] + (f"-{NUMBER_WORDS[ones]}" if ones else "")
